"""The cheapest plan for real traffic that its owners allow, and the proof of it."""
