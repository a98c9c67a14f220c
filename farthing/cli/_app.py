"""The app that commands are added to, and the run of it."""

from __future__ import annotations

import difflib
import gc
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnknownOptionError, UnusedCliTokensError

from farthing.cli._rows import as_csv
from farthing.cli._terminal import fitted


def _version() -> str:
    from importlib import metadata  # which takes a tenth of the time that a command takes to begin

    return metadata.version("farthing")


app = App(
    name="farthing",
    version=_version,
    help="What Claude on Amazon Bedrock costs: exact, explained, brought down.",
)


# What a module that is missing comes with. A command of which it is the heart says more itself.
EXTRAS = {
    "boto3": "aws", "botocore": "aws", "obstore": "aws", "starlette": "gateway", "uvicorn": "gateway",
    "httptools": "gateway", "uvloop": "gateway", "aiohttp": "gateway", "brotli": "gateway", "joserfc": "oidc",
    "psycopg": "postgres", "opentelemetry": "otel", "mcp": "mcp", "pyspark": "spark", "polars": "polars",
    "pandas": "pandas", "pyarrow": "arrow", "numba": "fast", "statsmodels": "forecast",
    "ibis": "sql", "sqlglot": "sql",
}  # fmt: skip

_NO_MEMORY = "there is not enough memory for this: give it more, or ask for fewer days or files at a time"
# By name: two of them are DuckDB's, which most commands do not load.
FAULTS = {
    "MemoryError": _NO_MEMORY,
    "OutOfMemoryException": _NO_MEMORY,
    "IOException": "a file of the ledger has gone: another process cleaned it up meanwhile; ask again ({})",
}


class BadInput(Exception):
    """One clear line for a person; exit code 2."""


def main(argv: Sequence[str]) -> None:
    """Run a command that is loaded, and exit."""
    from farthing.ledger import LedgerError

    gc.set_threshold(
        1_000_000, 50, 50
    )  # records hold no cycles, and looking for some takes a fifth of the time
    words = list(argv)
    try:
        with fitted(words):
            code = _run(words)
    except UnusedCliTokensError as error:
        code = _fail(_unknown_command(error.unused_tokens or []))
    except CycloptsError as error:
        code = _fail(" ".join(str(error).split()))
    except (BadInput, LedgerError, ValueError) as error:
        code = _fail(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        code = _fail(f"this needs {error.name}: pip install 'farthing[{extra}]'")
    except BrokenPipeError:  # `farthing by model | head` is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        said = FAULTS.get(type(error).__name__)
        if said is None:
            raise
        code = _fail(said.format(error))
    sys.exit(code or 0)


def _run(words: list[str]) -> int | None:
    """--csv is an option of reports; whatever else has --json has it by the rows of that."""
    try:
        return _call(words)
    except UnknownOptionError as unknown:
        if not _is(unknown, "--csv"):
            raise
        try:
            with as_csv():
                return _call(["--json" if word == "--csv" else word for word in words if word != "--json"])
        except UnknownOptionError as other:
            raise unknown if _is(other, "--json") else other from None


def _is(unknown: UnknownOptionError, option: str) -> bool:
    return option in (unknown.token.keyword, unknown.token.value)


def _call(words: list[str]) -> int | None:
    code: int | None = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    return code


def _unknown_command(tokens: Sequence[str]) -> str:
    word = tokens[0] if tokens else ""
    near = difflib.get_close_matches(word, [name for name in app if not name.startswith("-")], n=1)
    hint = f"did you mean `farthing {near[0]}`?" if near else "see --help"
    return f"{word!r} is no command or option here; {hint}"


def _fail(message: str) -> int:
    print(f"farthing: {message}", file=sys.stderr)
    return 2
