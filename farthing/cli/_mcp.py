"""The tools of `farthing mcp`. Each is a command with --json, run in this process: what a client is told is what that
command prints. No tool takes a path, writes, or asks the network; what is read was named when the server began.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from threading import Lock
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import Field, ValidationError

from farthing.cli._app import main
from farthing.usage import MODES, PLATFORMS

MOST_ROWS = 50
_SAYS = """What Claude on Amazon Bedrock costs, from the ledger of this machine's user.

Amounts are US dollars as exact decimal strings: do not add them as floating point. The footer of an answer says what it
rests on: calls without a price are in no sum (unpriced is not zero), `assumed_usd` hangs on assumptions, and a heading
`list value, not billed` is what a subscription's use would have cost. No prompt text is in any answer.
Days are YYYY-MM-DD, the last one included; months YYYY-MM."""

Since = Annotated[str, Field(description="First day, YYYY-MM-DD; all there is if left out.")]
Until = Annotated[str, Field(description="Last day, included, YYYY-MM-DD.")]
Tz = Annotated[
    str, Field(description="Time zone of days, such as Europe/Berlin; that of the settings, or UTC.")
]
WhereList = Annotated[
    list[str] | None,
    Field(
        description="Filters that all must hold: KEY=VALUE[,VALUE] or KEY!=VALUE; * matches. Keys as in `by`."
    ),
]
Limit = Annotated[int, Field(ge=1, le=1000, description="Most rows to answer with; the rest is counted.")]
Count = Annotated[int, Field(ge=0)]
_CUT = {"rows", "levers", "workloads", "scenarios", "by"}  # lists that may be long, the telling rows first
_OF_ALL_TEAMS = ("read", "rejected", "rejected_reasons")  # in footers: of files, and so of everyone's


@dataclass
class Tools:
    """Commands as tools, on one ledger. With `team`, on that team's calls alone."""

    ledger: str = ""
    config: str = ""
    team: str = ""
    _one_at_a_time: Lock = field(
        default_factory=Lock
    )  # stdout is the process's, and caught while a command runs

    def bill(
        self, since: Since = "", until: Until = "", tz: Tz = "", where: WhereList = None
    ) -> dict[str, Any]:
        """The bill layer by layer: from list price, by endpoint, cache, batch and long prompts, to what it comes to."""
        return self._asked(["bill"], since, until, tz, where)

    def by(
        self,
        keys: Annotated[
            list[str],
            Field(
                min_length=1,
                description="What to group by: model, endpoint, team, account, principal, region, project, session, "
                "operation, mode, platform, routing, day, week, month, hour, meter, or tag:NAME.",
            ),
        ],
        since: Since = "",
        until: Until = "",
        tz: Tz = "",
        where: WhereList = None,
        limit: Limit = MOST_ROWS,
    ) -> dict[str, Any]:
        """Calls, tokens of each meter and dollars, grouped by any keys; the dearest first."""
        return _cut(self._asked(["by", f"--keys={','.join(keys)}"], since, until, tz, where), limit)

    def why(
        self,
        earlier: Annotated[str, Field(description="A month, 2026-09, or days, 2026-09-01..2026-09-15.")],
        later: Annotated[str, Field(description="The later month or days.")],
        by: Annotated[
            str, Field(description="KEY[,KEY]: the steps of each team, account, model ... too.")
        ] = "",
        where: WhereList = None,
        limit: Limit = MOST_ROWS,
    ) -> dict[str, Any]:
        """Why the cost moved between two periods: volume, sizes, mixes, cache, prices; steps sum to the difference."""
        words = ["why", f"--from={earlier}", f"--to={later}", *([f"--by={by}"] if by else [])]
        return _cut(self._run([*words, *self._place(), *self._filters(where)]), limit)

    def savings(
        self, since: Since = "", until: Until = "", where: WhereList = None, limit: Limit = MOST_ROWS
    ) -> dict[str, Any]:
        """The cheapest plan that the owners of workloads allow, its proof, the exact changes. Nothing is applied."""
        return _cut(self._asked(["savings"], since, until, "", where), limit)

    def estimate(
        self,
        requests: Annotated[int, Field(ge=1, description="How many requests a day, or a month.")],
        input_tokens: Annotated[
            int, Field(ge=0, description="Tokens sent with each, the prefix among them.")
        ],
        output_tokens: Annotated[int, Field(ge=0, description="Tokens of an answer.")],
        per: Annotated[
            Literal["day", "month"], Field(description="Of what `requests` is the number.")
        ] = "month",
        prefix_tokens: Annotated[
            int, Field(ge=0, description="Of the tokens sent, those that never change.")
        ] = 0,
        model: Annotated[list[str] | None, Field(description="Only these models.")] = None,
        residency: Annotated[
            str, Field(description="Where calls may run: eu, us, jp, in_region or a region.")
        ] = "",
        deadline_hours: Annotated[
            int | None, Field(ge=0, description="An answer's; a batch may take 24.")
        ] = None,
        limit: Limit = MOST_ROWS,
    ) -> dict[str, Any]:
        """Before the first call: a month's cost of every way to run a workload, cheapest first; why others are out."""
        words = [
            "estimate", f"--requests={requests}", f"--per={per}", f"--input-tokens={input_tokens}",
            f"--output-tokens={output_tokens}", *(f"--model={name}" for name in model or ()),
        ]  # fmt: skip
        words += [f"--prefix-tokens={prefix_tokens}"] if prefix_tokens else []
        words += [f"--residency={residency}"] if residency else []
        words += [f"--deadline={deadline_hours}"] if deadline_hours is not None else []
        return _cut(self._run(words), limit)

    def rate(
        self,
        model: Annotated[
            str, Field(description="A model's id, inference profile or ARN, as the API takes it.")
        ],
        input: Count = 0,
        output: Count = 0,
        cache_read: Count = 0,
        cache_write_5m: Count = 0,
        cache_write_1h: Count = 0,
        at: Annotated[str, Field(description="Time of the call, ISO; now if left out.")] = "",
        platform: Annotated[
            str, Field(description=f"One of {', '.join(PLATFORMS)}; by the id if left out.")
        ] = "",
        mode: Annotated[str, Field(description=f"One of {', '.join(MODES)}.")] = "",
        region: Annotated[str, Field(description="Such as eu-west-1.")] = "",
    ) -> dict[str, Any]:
        """The exact price of one call from its token counts, with the rate card and each meter's dollars."""
        told = {
            "input": input, "output": output, "cache_read": cache_read, "cache_write_5m": cache_write_5m,
            "cache_write_1h": cache_write_1h, "at": at, "platform": platform, "mode": mode, "region": region,
        }  # fmt: skip
        options = [f"--{name.replace('_', '-')}={value}" for name, value in told.items() if value]
        return self._run(["rate", f"--model={model}", *options])

    def prices(
        self,
        model: Annotated[str, Field(description="A model, or any id of it.")],
        at: Annotated[str, Field(description="Day, YYYY-MM-DD; today if left out.")] = "",
    ) -> dict[str, Any]:
        """One model's rates on a day, in dollars per million tokens, by platform, endpoint and mode; with sources."""
        return self._run(["prices", "show", f"--model={model}", *([f"--at={at}"] if at else [])])

    # --- commands ---

    def _asked(
        self, words: Sequence[str], since: str, until: str, tz: str, where: Sequence[str] | None
    ) -> dict[str, Any]:
        days = {"since": since, "until": until, "tz": tz}
        options = [f"--{name}={value}" for name, value in days.items() if value]
        return self._run([*words, *options, *self._place(), *self._filters(where)])

    def _place(self) -> list[str]:
        named = {"ledger": self.ledger, "config": self.config}
        return [f"--{name}={value}" for name, value in named.items() if value]

    def _filters(self, where: Sequence[str] | None) -> list[str]:
        """All hold at once: so what a client filters by cannot lead out of the team."""
        return [f"--where={text}" for text in (*(where or ()), *([f"team={self.team}"] if self.team else []))]

    def _run(self, words: Sequence[str]) -> dict[str, Any]:
        with self._one_at_a_time:
            code, out, err = _command([*words, "--json"])
        if not out:
            raise ToolError(err.removeprefix("farthing: ") or f"farthing {words[0]}: exit code {code}")
        answer: dict[str, Any] = json.loads(out)
        if self.team and "footer" in answer:
            answer["footer"] = {k: v for k, v in answer["footer"].items() if k not in _OF_ALL_TEAMS}
        return answer


def _command(words: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, stdout, and the last line of stderr, which is the one that says what is wrong."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
        except SystemExit as ended:
            code = ended.code
    lines = err.getvalue().strip().splitlines()
    return int(code or 0), out.getvalue(), lines[-1] if lines else ""


def _cut(answer: dict[str, Any], limit: int) -> dict[str, Any]:
    """Long lists up to the limit, and how many rows were left out; sums are of all of them."""
    left = {}
    for name in _CUT & answer.keys():
        if len(answer[name]) > limit:
            left[name] = len(answer[name]) - limit
            answer[name] = answer[name][:limit]
    return answer | ({"rows_left_out": left} if left else {})


TOOLS: tuple[Callable[..., dict[str, Any]], ...] = (
    Tools.bill, Tools.by, Tools.why, Tools.savings, Tools.estimate, Tools.rate, Tools.prices
)  # fmt: skip


_MARKS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)


class _Server(MCPServer[Any]):
    """Refusals in one line, without the package's own words around them."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                found = error.__cause__.errors(include_url=False, include_input=False)
                said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found)
            else:
                said = str(error).removeprefix(f"Error executing tool {name}: ")
            raise ToolError(" ".join(said.split())) from None


def server(tools: Tools) -> MCPServer[Any]:
    """Of these tools, all of them read-only."""
    said = _SAYS + (f"\nOnly calls of the team {tools.team} are seen." if tools.team else "")
    found = [_strict(Tool.from_function(getattr(tools, tool.__name__), annotations=_MARKS, structured_output=True))
             for tool in TOOLS]  # fmt: skip
    version = metadata.version("farthing")
    return _Server("farthing", instructions=said, version=version, tools=found, log_level="WARNING")


def _strict(tool: Tool) -> Tool:
    """An argument that there is not is an error: a filter with a slip in its name would ask of all calls."""
    model = tool.fn_metadata.arg_model
    model.model_config["extra"] = "forbid"
    model.model_rebuild(force=True)
    tool.parameters["additionalProperties"] = False
    return tool
