"""A local Amazon Bedrock and Anthropic API on the loopback, which bills by the documented rules and remembers it all.

For tests and dry runs: answers are made up and always the same, tokens are counted by a rule (docs/emulator.md), what
is cached by farthing.cache, and the bill it writes is of public rates that the book has no part in.
"""

from farthing.emulator._clock import Clock, moment
from farthing.emulator._cur import Bills, Form
from farthing.emulator._faults import Failing, Fault, Faults, as_json, read_faults
from farthing.emulator._logs import Logs
from farthing.emulator._running import Emulator, running
from farthing.emulator._server import Server
from farthing.emulator._world import Identity, World

__all__ = [
    "Bills", "Clock", "Emulator", "Failing", "Fault", "Faults", "Form", "Identity", "Logs", "Server", "World",
    "as_json", "moment", "read_faults", "running",
]  # fmt: skip
