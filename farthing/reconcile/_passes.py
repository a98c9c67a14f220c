"""Passes that only some records tell of: compaction, advisors, attempts that fell back to another model.

AWS bills each pass; the counts at the top of an answer leave them out, and a log without bodies, telemetry and most
gateways have no others. Where further records of an account list the passes of their calls, these show what passes of
such calls come to. So much is taken to be in the calls whose records cannot tell, call for call, and never more in all
than was seen.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from farthing.book import Resolved
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.meters import METERS
from farthing.reconcile._sides import LOG, Grain, Place
from farthing.usage import EPOCH, Facts

if TYPE_CHECKING:
    from farthing.usage import Sku

_WHOLE = ("outbox", "claude_code")  # sources that have the answer's whole usage block
_IDS = "request_id, message_id, gateway_id, also"
_SIGN = "CASE WHEN reversal THEN -1 ELSE 1 END"
_DAY = timedelta(days=1)

# Calls that stand with several passes. Which one the counts at the top are of is the last, and in an outbox the first;
# of several passes of one model the others are taken to be left out, of several models those of the others. Found are
# tokens of further passes by what was called, how many calls have some, and how many calls of each kind have none.
_FOUND = f"""
WITH several AS (SELECT DISTINCT {_IDS}, "at" FROM pass_rows WHERE part > 0),
standing AS (
    SELECT {_IDS}, "at", "day", part, ctx, {", ".join(f"sum({m}) AS {m}" for m in METERS)}
    FROM pass_rows SEMI JOIN several USING ({_IDS}, "at") GROUP BY ALL HAVING sum({_SIGN}) > 0
), ends AS (
    SELECT {_IDS}, "at", max(part) AS last, count(DISTINCT ctx) AS kinds,
           arg_max(ctx, part) AS last_ctx, arg_min(ctx, part) AS first_ctx
    FROM standing GROUP BY ALL HAVING max(part) > 0
), pass_calls AS (
    SELECT s.*, CASE WHEN source = 'outbox' THEN first_ctx ELSE last_ctx END AS called,
           CASE WHEN source = 'outbox' THEN part > 0 ELSE part < last AND (s.ctx <> last_ctx OR kinds = 1) END
           AS further
    FROM standing s JOIN ends USING ({_IDS}, "at") JOIN pass_contexts c ON c.ctx = s.ctx
)
SELECT 'further' AS told, "day", called, ctx, {", ".join(f"sum({m})::BIGINT AS {m}" for m in METERS)},
       0::BIGINT AS calls FROM pass_calls WHERE further GROUP BY ALL
UNION ALL BY NAME
SELECT 'having' AS told, "day", called, count(*) AS calls FROM (
    SELECT DISTINCT "day", called, {_IDS}, "at" FROM pass_calls WHERE further) GROUP BY ALL
UNION ALL BY NAME
SELECT 'others' AS told, "day", any_value(ctx) AS ctx, sum(calls)::BIGINT AS calls
FROM pass_rows ANTI JOIN pass_calls USING ({_IDS}, "at") JOIN pass_contexts USING (ctx)
WHERE status = '' AND calls <> 0
GROUP BY "day", account, source, platform, model_id, served_model, region, mode, inference_geo HAVING sum(calls) > 0
"""


class _Of(NamedTuple):
    """Calls of one day, account and model."""

    day: date
    account: str
    model: str


@dataclass
class _Told:
    """What is known of such calls: how many records tell passes, how many have some, and the tokens of these."""

    telling: int = 0
    having: int = 0
    blind: dict[tuple[str, str], int] = field(
        default_factory=lambda: defaultdict(int)
    )  # by endpoint and mode
    tokens: dict[str, list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0] * len(METERS))
    )  # of passes, by their model


class _Place(NamedTuple):
    """Where passes are billed; the model is theirs."""

    day: date
    account: str
    model: str
    endpoint: str
    mode: str


@dataclass
class _Room:
    """The tokens by meter that passes may have come to in a place, and what shows it."""

    tokens: list[int]
    where: str


class Passes:
    """How many of the tokens billed beyond ours may be of passes that our records do not tell."""

    def __init__(self, ledger: Ledger, question: Question, grain: Grain) -> None:
        self._question = question
        self._grain = grain
        self._told: dict[_Of, _Told] = defaultdict(_Told)
        self._models: dict[Facts, Sku | None] = {}
        self._rooms: dict[_Place, _Room] = {}
        since, until = (EPOCH + (at - EPOCH) // _DAY * _DAY for at in question.span())
        span = since, until
        found = ledger.sift(
            "pass_parts", "SELECT 1 AS one FROM pass_parts WHERE part > 0 LIMIT 1", ("part",), span
        )
        if found.fetchall():
            self._add(ledger, span)

    def _add(self, ledger: Ledger, span: tuple[datetime, datetime]) -> None:
        ids = [*_IDS.split(", "), "at"]
        columns = (*ids, "day", "part", "ctx", "calls", "reversal", *METERS)
        found = ledger.sift("pass_rows", _FOUND, columns, span, ids, pass_contexts=ledger.contexts())
        contexts = {ctx: Facts(*said) for ctx, *said in ledger.contexts().fetchall()}
        for kind, day, called, ctx, *tokens, calls in found.fetchall():
            sku = self._sku(contexts[called if kind == "having" else ctx])
            told = self._at(day, contexts[ctx if kind == "others" else called])
            if told and sku and kind == "further":
                sums = told.tokens[sku.model]
                sums[:] = map(sum, zip(sums, tokens, strict=True))
            elif told and kind == "having":
                told.having += calls
                told.telling += calls
            elif told and sku and kind == "others":
                self._add_others(told, sku, contexts[ctx], calls)

    def _add_others(self, told: _Told, sku: Sku, facts: Facts, calls: int) -> None:
        """Calls without further passes: their records would tell them, or cannot."""
        if facts.source in _WHOLE or (facts.source == LOG and facts.served_model):
            told.telling += calls
        else:
            told.blind[sku.endpoint, sku.mode] += calls

    def _sku(self, facts: Facts) -> Sku | None:
        """None where no pass can be missing: batch outputs tell all of theirs."""
        if facts not in self._models:
            place = self._question.book.place(facts, self._question.profiles, self._question.assume)
            sku = place.sku if isinstance(place, Resolved) else None
            self._models[facts] = sku if sku and sku.platform == "bedrock" and sku.mode != "batch" else None
        return self._models[facts]

    def _at(self, day: int, facts: Facts) -> _Told | None:
        sku = self._sku(facts)
        at, account = self._grain((EPOCH + timedelta(days=day)).date(), facts.account)
        return self._told[_Of(at, account, sku.model)] if sku else None

    def most(self, place: Place) -> int:
        """The tokens of a place that passes may still have come to."""
        return self._at_place(place).tokens[METERS.index(place.meter)]

    def take(self, place: Place, more: int) -> tuple[int, str]:
        """So many of the tokens open in a place are explained; and what shows it."""
        room, count = self._at_place(place), min(more, self.most(place))
        room.tokens[METERS.index(place.meter)] -= count
        return count, room.where

    def _at_place(self, place: Place) -> _Room:
        at = _Place(place.day, place.account, place.model, place.endpoint, place.mode)
        if at not in self._rooms:
            self._rooms[at] = self._room(at)
        return self._rooms[at]

    def _room(self, at: _Place) -> _Room:
        room = _Room([0] * len(METERS), "")
        calls = telling = having = seen = 0
        for model in sorted({of.model for of in self._told}):
            blind = sum(told.blind[at.endpoint, at.mode] for told in self._near(at, model, (at.day,)))
            near = self._near(at, model, (at.day,)) if blind else []
            if not any(told.having for told in near):
                near = self._near(at, model, (at.day - _DAY, at.day + _DAY)) if blind else []
            of_model = sum(told.telling for told in near)
            shown = [sum(told.tokens[at.model][i] for told in near) for i in range(len(METERS))]
            if not any(shown):
                continue
            some = min(blind, of_model)
            room.tokens = [room.tokens[i] + tokens * some // of_model for i, tokens in enumerate(shown)]
            calls, telling = calls + blind, telling + of_model
            having, seen = having + sum(told.having for told in near), seen + sum(shown)
        room.where = (
            f"{at.account} {at.model} {at.endpoint} {at.day}: {calls:,} calls whose records tell no passes; {having:,} "
            f"of {telling:,} that would tell have {seen:,} tokens in them"
        )
        return room

    def _near(self, at: _Place, model: str, days: tuple[date, ...]) -> list[_Told]:
        """Of these days, of the account and of calls that name none."""
        accounts = dict.fromkeys((at.account, ""))
        keys: list[Any] = [_Of(day, account, model) for day in days for account in accounts]
        return [self._told[key] for key in keys if key in self._told]
