"""What the status line takes from the book and from other sessions, by the code that reports use; and its settings."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farthing.cli._statusline import VERSION, cache_folder, save, totals_path

if TYPE_CHECKING:
    from farthing.book import Book
    from farthing.config import Config

KEPT_DAYS = 14
_TICK = timedelta(microseconds=1)


# --- prices --------------------------------------------------------------------------------------------------------


def rates_of(keys: Iterable[str]) -> dict[str, Any]:
    """Of PLATFORM|MODEL|TIER|SPEED|GEOGRAPHY, its boxes: [from, to), prompt sizes, whether cached tokens have a price,
    rates. Of search|PLATFORM|DAY, picodollars for one search, or None.
    """
    book, profiles = _book()
    return {key: _rates(key, book, profiles) for key in keys}


def _book() -> tuple[Book, Mapping[str, str]]:
    from farthing.book import default_book
    from farthing.config import load

    if os.environ.get("FARTHING_BOOK"):
        from farthing.cli._shared import book_of

        return book_of().listed, load().profiles
    return default_book(), load().profiles


def _rates(key: str, book: Book, profiles: Mapping[str, str]) -> Any:
    from farthing.book import Unpriced
    from farthing.costs import SOLD_ON, Rates
    from farthing.importers._block import Block, mode
    from farthing.usage import EPOCH, Facts

    kind, _, rest = key.partition("|")
    if kind == "search":
        platform, _, day = rest.partition("|")
        return Rates.of(book, datetime.fromisoformat(day).date()).search if platform in SOLD_ON else None
    model, tier, speed, geo = rest.rsplit("|", 3)
    facts = Facts(
        source="claude_code", platform=kind, model_id=model, mode=mode(Block(service_tier=tier, speed=speed)),
        inference_geo=geo,
    )  # fmt: skip
    placed = book.place(facts, profiles)
    if isinstance(placed, Unpriced):
        return []
    return [
        [(card.starts - EPOCH) // _TICK, (card.ends - EPOCH) // _TICK, card.prompt_from, card.prompt_to,
         card.cached, list(card.rates)]
        for card in book.cards(placed.sku)
    ]  # fmt: skip


# --- other sessions ------------------------------------------------------------------------------------------------


def refresh(now: datetime) -> None:
    """Work out the sums of the day and the week over all transcripts, at the least priority; one process at a time."""
    folder = cache_folder()
    Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    path = totals_path(folder)
    with Path(f"{path}.lock").open("wb") as lock:
        if not _alone(lock):
            return
        if hasattr(os, "nice"):
            os.nice(10)
        begun = time.process_time()
        found = totals(now)
        save(path, found | {"v": VERSION, "took_s": round(time.process_time() - begun, 3)})
    for old in Path(folder).iterdir():
        if old.stat().st_mtime < now.timestamp() - KEPT_DAYS * 86_400:
            old.unlink(missing_ok=True)


def _alone(lock: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: two at once do no harm
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def totals(now: datetime) -> dict[str, Any]:
    """Picodollars of today and of the week since Monday, and each session's part, as `by day,session` has them."""
    from farthing.cells import Question
    from farthing.cli._shared import book_of, load_config, run_import, transcript_folders
    from farthing.ledger import Ledger
    from farthing.reports import by

    config = load_config()
    question = Question(
        tz=config.timezone, profiles=config.profiles, book=book_of().listed, config=_without_offers(config)
    )
    today = now.astimezone(question.zone).date()
    monday = today - timedelta(days=today.weekday())
    start, end, week = (question._midnight(day) for day in (today, today + timedelta(days=1), monday))  # noqa: SLF001
    files = [
        str(path)
        for folder in transcript_folders()
        for path in folder.rglob("*.jsonl")
        if path.stat().st_mtime >= week.timestamp()
    ]
    rows: list[dict[str, Any]] = []
    if files:
        with tempfile.TemporaryDirectory(prefix="farthing-") as temporary:
            ledger = Ledger(Path(temporary) / "ledger")
            run_import(ledger, files, workers=1)
            rows = by(ledger, _since(question, monday), ("day", "session")).rows
    sessions: dict[str, dict[str, int]] = {}
    for row in rows:
        sums = sessions.setdefault(row["session"], {"today": 0, "week": 0})
        sums["week"] += row["usd"] or 0
        sums["today"] += (row["usd"] or 0) if row["day"] == today.isoformat() else 0
    return {
        "day": [(start - _epoch()) // _TICK, (end - _epoch()) // _TICK],
        "week_days": [(week - _epoch()) // _TICK],
        "today": sum(each["today"] for each in sessions.values()),
        "week": sum(each["week"] for each in sessions.values()),
        "sessions": sessions,
        "budget": _budget(config, now),
    }


def _epoch() -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC)


def _without_offers(config: Config) -> Config:
    """At list, as the sums of sessions are."""
    import msgspec

    return msgspec.structs.replace(config, contracts=())


def _since(question: Any, day: Any) -> Any:
    from dataclasses import replace

    return replace(question, since=day)


def _budget(config: Config, now: datetime) -> dict[str, Any] | None:
    """The budget of farthing.toml that is used up most, by the ledger on this machine; a bucket is not asked."""
    from farthing.aws import is_s3
    from farthing.cells import Question
    from farthing.cli._shared import book_of, default_ledger, is_ledger
    from farthing.ledger import Ledger
    from farthing.reports.budgets import standings

    place = default_ledger(config)
    if not any(budget.reported for budget in config.budgets) or is_s3(place) or not is_ledger(place):
        return None
    question = Question(tz=config.timezone, profiles=config.profiles, book=book_of(), config=config)
    found = standings(Ledger(place), question, now)
    fullest = max(found, key=lambda each: each.spent * 1000 // max(each.limit, 1))
    return {"name": fullest.budget.name, "limit": fullest.limit, "spent": fullest.spent}


# --- settings ------------------------------------------------------------------------------------------------------


def settings_path() -> Path:
    """Claude Code's own, of this user."""
    named = os.environ.get("CLAUDE_CONFIG_DIR", "").split(",")[0].strip()
    return (Path(named).expanduser() if named else Path.home() / ".claude") / "settings.json"


def piece() -> dict[str, Any]:
    """What Claude Code is to be told: the command, and to ask again while nothing happens, as caches grow cold."""
    program = shutil.which("farthing")
    words = [program] if program else [sys.executable, "-m", "farthing"]
    return {"type": "command", "command": shlex.join([*words, "statusline"]), "refreshInterval": 30}


def written(path: Path) -> str:
    """Put the piece into the settings, which keep all else; ValueError where they are none or have another line."""
    try:
        said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path}: no JSON ({error}): mend it, then ask again") from error
    if not isinstance(said, dict):
        raise ValueError(f"{path}: no object of settings")  # noqa: TRY004 - one line for a person
    before = said.get("statusLine")
    if isinstance(before, dict) and "statusline" not in str(before.get("command", "")).split()[-1:]:
        raise ValueError(
            f"{path}: there is a status line already: {before.get('command')!r}; take it out first"
        )
    if before == piece():
        return f"{path} has it already"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".farthing")
    beside.write_text(json.dumps(said | {"statusLine": piece()}, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)
    return f"written to {path}; Claude Code shows it with its next message"
