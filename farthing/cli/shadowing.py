"""What copies in shadow came to, and the verdict of the quality gate put to an entry."""

from __future__ import annotations

import hashlib
import json as json_
import statistics
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._policies import By, Config, Json, Policy, policy_path, told
from farthing.cli._shared import write_json
from farthing.money import show as dollars
from farthing.money import usd

if TYPE_CHECKING:
    from farthing.policy import Copied, Entry

group = app["policy"]  # of policing.py, whose name comes before this one's
_PAIRS = (("prompt", "prompt tokens"), ("output", "tokens of answers"), ("length", "characters of answers"))


@group.command
def shadow(
    name: Annotated[str, Parameter(help="An entry; else all that have copies.")] = "",
    /, *, policy: Policy = None, config: Config = None,
    margin: Annotated[float, Parameter(help="As in farthing evaluate.")] = 0.02,
    out: Annotated[Path | None, Parameter(help="Write the verdict of the one entry here.")] = None,
    json: Json = False,
) -> int:  # fmt: skip
    """What the model of an entry in shadow made of copies of calls: costs, lengths, and the verdict on their grades."""
    from farthing.policy import Copies, copies_path, load

    path = policy_path(policy, config)
    store = Copies(copies_path(path))
    entries = [entry for entry in load(path).entries if entry.lever == "model" and name in ("", entry.name)]
    found = [(entry, rows) for entry in entries if (rows := store.of(entry))]
    if name and not entries:
        raise BadInput(
            f"{path}: no entry of the lever model is called {name!r}: `farthing policy show` names them"
        )
    answers = [_of(entry, rows, margin) for entry, rows in found]
    if out:
        _write(out, answers)
    if json:
        write_json({"path": str(path), "entries": answers})
        return 0
    if not found:
        print(f'{path}: no copies yet: a model entry with state = "shadow" and '
              'shadow = {sample = 5, budget_usd = "10"} has some made by the gateway')  # fmt: skip
    for entry, rows in found:
        _print(entry, rows, _of(entry, rows, margin))
    return 0


@group.command
def attach(
    name: Annotated[str, Parameter(help="An entry of the lever model.")],
    verdict: Annotated[Path, Parameter(help="What `farthing evaluate` or `farthing policy shadow` wrote.")],
    /, *, by: By = "", policy: Policy = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Put the quality gate's verdict to an entry, if it says that its model is as good. It is not switched on by it."""
    from farthing.policy import attach as attached
    from farthing.policy import load

    path = policy_path(policy, config)
    entry = next((each for each in load(path).entries if each.name == name), None)
    try:
        raw = verdict.read_bytes()
        said = json_.loads(raw)
        models = _model(said["from"]), _model(said["to"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{verdict}: no verdict of farthing evaluate: {type(error).__name__}") from error
    if entry is not None and models != (entry.model, entry.use):
        raise BadInput(
            f"{verdict}: compares {' with '.join(models)}, and {name} is of {entry.model} and {entry.use}"
        )
    if said.get("verdict") != "not inferior":
        raise BadInput(
            f"{verdict}: says {said.get('verdict')!r}: only what is not inferior is put to an entry"
        )
    label = f"{verdict.name} sha256:{hashlib.sha256(raw).hexdigest()[:12]}"
    if pairs := said.get("pairs"):
        label += f": not inferior but for {said.get('margin')} on {pairs} pairs"
    return told(attached(path, name, label, by=by, now=datetime.now(UTC)), json=json)


def _model(text: str) -> str:
    """As catalogued, of any of its ids."""
    from farthing.book import Resolved, default_book

    place = default_book().resolve(text, platform="bedrock")
    return place.sku.model if isinstance(place, Resolved) else text


# --- what copies tell ------------------------------------------------------------------------------------------------


def _of(entry: Entry, rows: list[Copied], margin: float) -> dict[str, Any]:
    """As JSON. Sums are of the copies that were answered, beside the same sums of the calls that they are of."""
    answered = [row for row in rows if not row.status]
    priced = [row for row in answered if row.alike_picos is not None and row.called_picos is not None]
    return {
        "entry": entry.name, "from": entry.model, "to": entry.use, "state": entry.state,
        "copies": len(rows), "answered": len(answered),
        "failed": dict(Counter(row.status for row in rows if row.status)),
        "evaluation_usd": usd(sum(row.held if row.picos is None else row.picos for row in rows)),
        "budget_usd": entry.shadow.budget_usd,
        "called_usd": usd(sum(row.called_picos or 0 for row in priced)),
        "alike_usd": usd(sum(row.alike_picos or 0 for row in priced)),
        "compared": {key: _both(answered, key) for key, _ in _PAIRS},
        "median_ms": [_median(answered, key) for key in ("called_ms", "ms")],
        "stops": [dict(Counter(getattr(row, key) for row in answered)) for key in ("called_stop", "stop")],
        "verdict": _verdict(entry, answered, margin),
    }  # fmt: skip


def _both(rows: list[Copied], key: str) -> list[int]:
    known = [(a, b) for row in rows
             if (a := getattr(row, f"called_{key}")) is not None and (b := getattr(row, key)) is not None]  # fmt: skip
    return [sum(each) for each in zip(*known, strict=True)] if known else [0, 0]


def _median(rows: list[Copied], key: str) -> int | None:
    known = [value for row in rows if (value := getattr(row, key)) is not None]
    return int(statistics.median(known)) if known else None


def _verdict(entry: Entry, rows: list[Copied], margin: float) -> dict[str, Any] | None:
    """Of the quality gate, on the grades there are; None without any."""
    from farthing.evaluate import Pair, judge

    pairs = [Pair(row.id, row.called_score, row.score) for row in rows
             if row.called_score is not None and row.score is not None]  # fmt: skip
    if not pairs:
        return None
    digest = hashlib.sha256(json_.dumps([tuple(pair) for pair in pairs]).encode()).hexdigest()[:16]
    about = {"from": entry.model, "to": entry.use, "workload": entry.workload}
    return {**about, **judge(pairs, margin)._asdict(), "evidence": digest, "by": "copies in shadow"}


def _write(out: Path, answers: list[dict[str, Any]]) -> None:
    verdicts = [each["verdict"] for each in answers if each["verdict"]]
    if len(verdicts) != 1:
        raise BadInput(f"--out wants one entry with grades, and there are {len(verdicts)}: name it; `farthing gateway "
                       "--grade` grades copies")  # fmt: skip
    out.write_text(json_.dumps(verdicts[0], indent=2) + "\n", encoding="utf-8")


def _print(entry: Entry, rows: list[Copied], said: dict[str, Any]) -> None:
    failed = f", {len(rows) - said['answered']} without an answer" if len(rows) > said["answered"] else ""
    spent = sum(row.held if row.picos is None else row.picos for row in rows)
    print(f"{entry.name}: {said['answered']:,} calls of {entry.model} put to {entry.use}, too{failed}")
    print(f"  evaluation cost {dollars(spent)}" + (f" of ${entry.shadow.budget_usd}" if entry.shadow else ""))
    print(
        f"  these calls cost ${said['called_usd']}, and with {entry.use}, cached alike, ${said['alike_usd']}"
    )
    for key, what in _PAIRS:
        called, other = said["compared"][key]
        if called:
            print(f"  {what}: {called:,} and {other:,}, {100 * other / called:.1f} %")
    print(
        f"  half of them took {' and '.join(f'{ms:,} ms' for ms in said['median_ms'] if ms is not None)} or less"
    )
    for model, stops in zip((entry.model, entry.use), said["stops"], strict=True):
        ways = [f"{stop or 'unknown'} {count:,}" for stop, count in sorted(stops.items())]
        print(f"  {model} ended by {', '.join(ways)}")
    found = said["verdict"]
    if found is None:
        print("  no grades: `farthing gateway --grade exact` or --grade-command gives some")
        return
    print(f"  {found['verdict']}, for a margin of {found['margin']:.1%}, on {found['pairs']:,} pairs: "
          f"{found['difference']:+.2%}, between {found['low']:+.2%} and {found['high']:+.2%}")  # fmt: skip
    if found["verdict"] == "not inferior":
        print(f"  put it to the entry: farthing policy shadow {entry.name} --out verdict.json\n"
              f"                       farthing policy attach {entry.name} verdict.json --by NAME")  # fmt: skip
