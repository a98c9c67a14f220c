"""`farthing demo`: a made-up month, imported and priced; `farthing demo live`: a day through the gateway, twice."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._shared import OUTPUT, Asked, progress, run_import, write_json

if TYPE_CHECKING:
    from farthing.livedemo import Outcome

group = App(
    name="demo", help="A made-up month of a company on Bedrock: its logs in the real format, and its bill."
)
app.command(group)


@group.default
def demo(
    *,
    write_logs: Annotated[Path | None, Parameter(help="Only write the logs, into this folder.")] = None,
    write_bill: Annotated[
        Path | None, Parameter(help="And what AWS would bill for them, as CUR 2.0.")
    ] = None,
    calls: int = 200_000,
    seed: int = 7,
) -> int:
    """A made-up month of a company on Bedrock: its logs in the real format, imported, and its bill."""
    from farthing import demo as demo_
    from farthing.cells import Question
    from farthing.ledger import Ledger
    from farthing.reports import REPORTS

    if calls < 1:
        raise BadInput(f"--calls {calls}: at least 1")
    with tempfile.TemporaryDirectory(prefix="farthing-demo-") as temporary:
        folder = write_logs or Path(temporary) / "logs"
        with progress("writing logs") as advance:
            written = demo_.write_logs(folder, calls=calls, seed=seed, progress=advance)
        print(f"wrote {written.records:,} invocation log records in {written.files:,} files")
        if write_logs and not write_bill:
            return 0
        ledger = Ledger(Path(temporary) / "ledger")
        imported = run_import(ledger, [str(folder)]).sentence()
        if write_bill:
            from farthing.cli._showcase import bill_of

            write_bill.write_bytes(bill_of(ledger))
            print(f"wrote the bill of it to {write_bill}")
            return 0
        print(imported)
        asked = Asked()
        question = Question()
        for name, extra in (("bill", {}), ("by", {"keys": ["tag:team"]}), ("levers", {})):
            print()
            asked.answer(REPORTS[name].make(ledger, question, **extra))
        print("\nNext: farthing import PATH, with your own logs; farthing --help")
    return 0


@group.command
def live(
    *,
    out: Annotated[
        Path, Parameter(help="Folder for the logs, bills and records of both runs; new, or a demo's.")
    ],
    json: Annotated[
        bool, Parameter(name=["--json", "-j"], negative="", group=OUTPUT, help="One line of JSON, exact.")
    ] = False,
) -> int:
    """A made-up day through the gateway to a local Bedrock, with policies off and then on: both bills and the proof.

    Exit code 1 if a bill does not come to the same as its logs.
    """
    try:
        from farthing.livedemo import DemoError
        from farthing.livedemo import live as run
    except ImportError as error:
        raise BadInput(f"the live demo needs {error.name}: pip install 'farthing[gateway]'") from error
    from farthing.book import default_book

    try:
        with _runs() as advance:
            made = run(out, default_book(), datetime.now(UTC), advance)
    except DemoError as error:
        raise BadInput(str(error)) from error
    except OSError as error:
        raise BadInput(f"{error.filename or out}: {error.strerror or error}") from error
    if json:
        write_json(made.as_json())
    else:
        _print(made, out)
    return 0 if made.reconciled else 1


@contextmanager
def _runs() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each run, one after the other, both within the whole."""
    with progress("a day, twice") as advance:

        def told(run: str, done: int, total: int) -> None:
            if advance is not None:
                advance(done + (total if run == "on" else 0), 2 * total)

        yield told


def _print(made: Outcome, out: Path) -> None:
    from farthing.book import default_book
    from farthing.livedemo import question
    from farthing.money import show
    from farthing.reports import REPORTS

    asked = Asked()
    for name, run in (("off", made.off), ("on", made.on)):
        print(f"Policies {name}: {len(run.spent):,} calls")
        asked.answer(REPORTS["bill"].make(run.ledger, question(default_book())))
        same = "the same, to the picodollar" if run.reconciled else "NOT the same"
        print(f"By the logs {show(run.picos)}, by the emulator's bill {show(run.billed)}: {same}.\n")
    _waterfall(made)
    over = 1000 * (made.on.picos - made.bound) // max(1, made.bound)
    got = 1000 * (made.off.picos - made.on.picos) // max(1, made.off.picos - made.bound)
    print(f"Nobody who uses these levers could pay less than {show(made.bound)}: the second run is {over / 10:.1f} % "
          f"over that,\nand saved {got / 10:.1f} % of all there was to save.")  # fmt: skip
    print("The gateway did it by the policy; the nightly job alone had to say that its calls may wait.")
    print("\nLogs, bills, the gateway's records, the policy and the bound are kept. Next:\n"
          f"  cd {out}\n"
          "  farthing savings report --ledger ledger/on --bodies on     realised against estimated\n"
          "  farthing reconcile --statement cur/on --month 2026-11 --ledger ledger/on")  # fmt: skip


def _waterfall(made: Outcome) -> None:
    from farthing.money import show

    print("From one bill to the other")
    rows = {"policies off": made.off.picos, **{f"  {name}": -picos for name, picos in made.levers.items()}}
    for name, picos in {**rows, "policies on": made.on.picos, "bound": made.bound}.items():
        print(f"  {name:<14}{show(picos):>10}")
