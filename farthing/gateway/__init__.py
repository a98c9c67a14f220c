"""The live path: hooks and a gateway that meter calls, hold budgets and apply policies, and never break an answer."""
