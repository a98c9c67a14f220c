"""Open intents that the invocation log has told of under no id that they share.

A gateway puts its id where the log keeps it, if it may: Converse takes it in the request's body alone, which a gateway
leaves as it was sent unless asked. An intent whose answer never came then stands beside the log's record of the same
call. Such records are told to be one by one that has the ids of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from farthing.meters import METERS
from farthing.usage import Facts, Usage

if TYPE_CHECKING:
    from farthing.ledger._ledger import Ledger

OPEN, LOG = "outbox_intent", "bedrock_log"
EARLIER_US = 1_000_000  # the log cuts its times to seconds
LATER_US = 10_000_000  # a call waits for a connection, and clocks differ
_PROMPT = " + ".join(meter for meter in METERS if meter != "output")
_SAID = ("model_id", "operation")


def settle_open(ledger: Ledger) -> int:
    """Make one of each open intent and the log's record that fits it; how many.

    It fits with the same model as called, operation, account and region (as far as both say them), began with the
    intent or up to 10 s after it, used no more than the intent's ceiling, and has no gateway's id of its own. Each
    record is taken once, and as many as can be: one that is left beside its intent would count twice.
    """
    if ledger.lacks_source(OPEN):
        return 0
    con = ledger.connection
    con.register("intent_contexts", ledger.contexts())
    if not con.execute("SELECT 1 FROM intent_contexts WHERE source = $1 LIMIT 1", [OPEN]).fetchall():
        return 0
    con.register("intent_rows", ledger.rows())
    taken = matched(con.execute(_pairs()).fetchall())
    if taken:
        ledger.append(list(_told(ledger, taken, {request: at for at, _, request in _times(con, taken)})))
    return len(taken)


def matched(pairs: Iterable[tuple[int, str, str]]) -> dict[str, str]:
    """Requests with an intent each, as many as there can be, of (how far apart, intent, request), nearest first.

    The nearest alone would not do: a short call may take the intent of a long one, for which then none is left. So an
    intent that finds all its requests taken asks whose they are to take others (Kuhn's augmenting paths). What a vain
    search has seen is not looked at again: no later one gets anywhere through it.
    """
    fits: dict[str, list[str]] = {}
    for _, intent, request in pairs:
        fits.setdefault(intent, []).append(request)
    taken: dict[str, str] = {}
    held: dict[str, str] = {}  # the same by intent
    vain: set[str] = set()
    for intent in fits:
        asks: dict[str, str] = {}  # by request: who would take it
        if free := _free(intent, fits, taken, asks, vain):
            while free:
                taker = asks[free]
                before = held.get(taker, "")
                taken[free], held[taker] = taker, free
                free = before
        else:
            vain |= asks.keys()
    return taken


def _free(
    intent: str, fits: dict[str, list[str]], taken: dict[str, str], asks: dict[str, str], vain: set[str]
) -> str:
    """A request that nobody has, if those who hold others move on; "" if there is none."""
    asking = [intent]
    for each in asking:  # it grows
        for request in fits[each]:
            if request in asks or request in vain:
                continue
            asks[request] = each
            if request not in taken:
                return request
            asking.append(taken[request])
    return ""


def _standing(source: str, more: str) -> str:
    keys = "request_id, message_id, gateway_id, model_id, operation, account, region"
    return f"""SELECT {keys}, epoch_us("at") AS at_us, sum(calls) AS n,
                      abs(sum({_PROMPT})) AS prompt, abs(sum(output)) AS output
               FROM intent_rows JOIN intent_contexts USING (ctx)
               WHERE source = '{source}' AND part = 0 {more} GROUP BY ALL HAVING sum(calls) > 0"""


def _pairs() -> str:
    alike = " AND ".join(f"i.{name} = l.{name}" for name in _SAID)
    fits = " AND ".join(
        f"(i.{name} = l.{name} OR i.{name} = '' OR l.{name} = '')" for name in ("account", "region")
    )
    return f"""
        WITH i AS ({_standing(OPEN, "AND request_id = ''")}),
             l AS ({_standing(LOG, "AND gateway_id = '' AND request_id <> '' AND status = ''")})
        SELECT abs(l.at_us - i.at_us) AS apart, i.gateway_id, l.request_id
        FROM i JOIN l ON {alike} AND {fits} AND l.at_us BETWEEN i.at_us - {EARLIER_US} AND i.at_us + {LATER_US}
             AND l.prompt <= i.prompt AND l.output <= i.output
        ORDER BY ALL"""


def _times(con: Any, taken: dict[str, str]) -> Any:
    return con.execute(
        'SELECT DISTINCT epoch_us("at"), 0, request_id FROM intent_rows WHERE request_id IN (SELECT unnest($1))',
        [list(taken)],
    ).fetchall()


def _told(ledger: Ledger, taken: dict[str, str], times: dict[str, int]) -> Iterator[Usage]:
    """The log's records again, with the intents' ids."""
    asked = [Usage(times[request], request, "", ((Facts(LOG), (0, 0, 0, 0, 0)),)) for request in taken]
    for usage in ledger.known(asked):
        if usage.request_id in taken and usage.parts[0][0].source == LOG:
            yield usage._replace(gateway_id=taken[usage.request_id])
