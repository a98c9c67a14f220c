"""The traces of a ledger's own traffic: from the counts of sessions, and from logs with bodies that lie beside it.

A session's counts tell how its context grew (farthing.traces.claude_code has the rule), where cached tokens bear it
out. Bodies tell prefixes themselves; a call of a body is the ledger's call of the same request id, so that workload and
session are known.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from farthing.book import FOREVER, START, Resolved
from farthing.cache import FIVE_US, HOUR_US, Ints, Policy, Trace
from farthing.cells import Question
from farthing.config import claim_by_facts, claims, fingerprint
from farthing.ledger import Ledger, arrow
from farthing.meters import METERS, Vector
from farthing.optimise._lent import Lot, Sharer, lent
from farthing.optimise._turns import Turns, said, turns
from farthing.outbox import apportion
from farthing.traces import Call, Reject, Source, bedrock_log, claude_code
from farthing.traces._log import Gather, Left
from farthing.traces._volatile import Memory
from farthing.usage import Facts, Usage, parse_model_id

# Of calls in sessions, and of the places in prompts that they come to; of more, every n-th session is taken. A session
# of more calls is taken in pieces, since a call walks as many places as there were calls before it.
MOST_ROWS, MOST_PLACES, MOST_TURNS = 400_000, 10_000_000, 1_000
_HOUR_US = 3_600_000_000
_FACTS = ("source", "platform", "model_id", "served_model", "region", "account", "principal", "mode", "inference_geo",
          "session", "project", "operation")  # fmt: skip


class Place(NamedTuple):
    """A place in prompts whose text changes: what it is, in how many calls, and how many different ones there were."""

    path: str
    kind: str  # clock, id, tool-order
    calls: int
    different: int


class Waiting(NamedTuple):
    """Of the calls whose bodies are known: those that nobody watches and no session holds together, as far as counts
    tell."""

    calls: int = 0
    turns: frozenset[str] = (
        frozenset()
    )  # of them, by their request ids: turns of conversations, which may not wait
    doubtful: int = 0  # and those whose prompts hold answers of no call that is known


UNTOLD = Waiting()


class Traffic(NamedTuple):
    """The trace of a lot, and what its requests were billed. `today` is how it is cached, as far as can be told."""

    trace: Trace
    billed: Vector  # columns, one entry a request
    cluster: Ints  # of each request: its session, or the hour
    sessions: int
    deferrable: (
        Any  # of each request, whether it may wait: no stream, no session, and no turn that its prompt shows
    )
    today: Policy
    told_by: str  # counts, bodies
    notes: tuple[str, ...]
    every: int = 1  # one session in so many
    settled: Trace | None = None  # the same requests with what changes from call to call at the end
    moved: tuple[Place, ...] = ()
    borrowed: Mapping[Lot | None, int] = {}  # tokens read that only others had kept alive, by who had
    waiting: Waiting = UNTOLD


class _Row(NamedTuple):
    lot: Lot
    session: str
    deferrable: bool
    space: tuple[str, ...]  # account and region


def from_counts(ledger: Ledger, question: Question, wanted: Iterable[str]) -> dict[Lot, Traffic]:
    """Traces of the sessions in the ledger, for these workloads."""
    known = _lots(ledger, question)
    some = set(wanted)
    gathers: dict[Lot, Gather] = defaultdict(Gather)
    calls: dict[Lot, list[Call]] = defaultdict(list)
    every, rows = _session_rows(ledger, question)
    turns: Counter[tuple[Lot, str, bool]] = Counter()
    sharers: list[Sharer] = []
    for at_us, ctx, tags, sidechain, *counts in rows():
        row = known(ctx, tags)
        tokens = Vector(*counts)
        if row is None or row.lot.workload not in some or not tokens.prompt:
            continue
        context = row.lot, row.session, sidechain
        piece = turns[context] // MOST_TURNS
        turns[context] += 1
        space = (row.session, "sidechain" if sidechain else "", str(piece) if piece else "")
        calls[row.lot].append(
            Call(at_us, space, (), (), tokens.prompt, tokens.output, billed=tokens, model=row.lot.model)
        )
        if tokens.cached:
            sharers.append(Sharer(row.lot, at_us, row.space, (("", tokens.prompt),), tokens))
    for lot, found in calls.items():
        if any(call.billed and call.billed.cached for call in found):
            gathers[lot].add("ledger", found)
    borrowed = lent(sharers)
    return {
        lot: traffic._replace(every=every, borrowed=borrowed.get(lot, {}))
        for lot, gather in gathers.items()
        if (traffic := _traffic(gather, claude_code, "counts", {}))
    }


def _session_rows(ledger: Ledger, question: Question) -> tuple[int, Callable[[], Iterator[tuple[Any, ...]]]]:
    """Calls of sessions that were not reversed, in the question's days: of every n-th session, with n."""
    con = ledger.connection
    con.register("savings_contexts", ledger.contexts())
    chosen = con.sql(
        "SELECT ctx, session FROM savings_contexts WHERE session <> '' AND mode IN ('', 'on_demand')"
    )
    con.register("savings_sessions", chosen)
    found = ledger.sift(
        "savings_rows",
        "SELECT ctx, count(*) AS n FROM savings_rows SEMI JOIN savings_chosen USING (ctx) GROUP BY ctx",
        ("ctx",),
        question.span(),
        savings_chosen=chosen,
    )
    con.register("savings_counts", found)
    rows, places = con.execute(
        f"""SELECT sum(n), sum(n * least(n, {MOST_TURNS})) // 2 FROM (
                SELECT sum(n) AS n FROM savings_counts JOIN savings_sessions USING (ctx) GROUP BY session)"""
    ).fetchall()[0]
    every = max(1, -(-(rows or 0) // MOST_ROWS), -(-(places or 0) // MOST_PLACES))
    # some calls in parts from several shares, until they are put together below
    call = '"at", ctx, tags, sidechain, part, request_id, message_id'
    found = ledger.sift(
        "savings_rows",
        f"""SELECT {call}, {", ".join(f"sum({count})::BIGINT AS {count}" for count in ("calls", *METERS))}
            FROM savings_rows SEMI JOIN savings_sampled USING (ctx) GROUP BY {call}""",
        ("at", "ctx", "tags", "sidechain", "part", "request_id", "message_id", "calls", *METERS),
        question.span(),
        savings_sampled=chosen.filter(f"hash(session) % {every} = 0"),
    )
    con.register("savings_calls", found)
    meters = ", ".join(f"CAST(sum({meter}) AS BIGINT)" for meter in METERS)
    query = (
        f'SELECT epoch_us("at"), ctx, tags, sidechain, {meters} FROM savings_calls '
        f"GROUP BY {call} HAVING sum(calls) > 0 ORDER BY 1, request_id, message_id, part, ctx, tags"
    )

    def read() -> Iterator[tuple[Any, ...]]:
        found = con.execute(query)
        while batch := found.fetchmany(10_000):
            yield from batch

    return every, read


# --- whose a call is -----------------------------------------------------------------------------------------------


def _lots(ledger: Ledger, question: Question) -> Callable[[int, int], _Row | None]:
    """Which lot and session a context and a tag set make; as farthing.cells says, a row at a time."""
    facts = {
        ctx: dict(zip(_FACTS, said, strict=True))
        for ctx, *said in ledger.contexts().project(", ".join(("ctx", *_FACTS))).fetchall()
    }
    claimants = question.config.workloads
    by_facts, by_tags = claim_by_facts(claimants), claims(claimants, "tags")
    tagged: dict[int, list[tuple[int, str]]] = defaultdict(list)
    if any(made.tags for made in claimants.values()):
        for tags, key, value in ledger.table("tags").distinct().project("tags, key, value").fetchall():
            if claim := by_tags(f"{key}={value}"):
                tagged[tags].append(claim)
    seen: dict[tuple[int, int], _Row | None] = {}

    def place(ctx: int, tags: int) -> _Row | None:
        said = facts[ctx]
        names = {name: said[name] for name in Facts._fields if name in said}
        place = question.book.place(Facts(**names), question.profiles, question.assume)
        if not isinstance(place, Resolved):
            return None
        parsed = parse_model_id(said["model_id"])
        belongs = {
            "profiles": "" if parsed.base else parsed.profile, "principals": said["principal"],
            "projects": said["project"], "accounts": said["account"],
        }  # fmt: skip
        workload = min(tagged[tags])[1] if tagged.get(tags) else by_facts(belongs) or fingerprint(belongs)
        waits = not said["session"] and "Stream" not in said["operation"] and place.sku.mode == "on_demand"
        made = Lot(workload, place.sku.platform, place.sku.model)
        return _Row(made, said["session"], waits, (said["account"], said["region"]))

    def lot(ctx: int, tags: int) -> _Row | None:
        if (ctx, tags) not in seen:
            seen[ctx, tags] = place(ctx, tags)
        return seen[ctx, tags]

    return lot


# --- from bodies ---------------------------------------------------------------------------------------------------


def from_bodies(
    ledger: Ledger,
    question: Question,
    sources: Iterable[Source],
    key: bytes,
    asked: Callable[[Lot], bool] = lambda _: True,
) -> tuple[dict[Lot, Traffic], list[str], Counter[str]]:
    """Traces of logs with bodies, of the calls that are in the ledger; lines that were bad, and what was left out."""
    known = _lots(ledger, question)
    since, until = question.span()
    calls: dict[str, tuple[str, Call]] = {}
    memory: Memory = {}
    left: Counter[str] = Counter()
    bad: list[str] = []
    linked = []
    for source in sources:
        if not bedrock_log.sniff(source.head):
            left["files without calls"] += 1
            continue
        for item in bedrock_log.read(source, key, memory):
            if isinstance(item, Reject):
                bad.append(f"{source.path}:{item.line}: {item.reason}")
            elif isinstance(item, Left):
                left[item.reason] += item.requests
            elif item.id in calls:
                left["copies"] += 1
            else:
                linked.append(said(item))  # turns before and after the days asked for, too
                if since <= Usage(item.at_us, "", "", ()).at < until:
                    calls[item.id] = source.path, item
                else:
                    left["outside the days asked for"] += 1
    places = _places(ledger, list(calls))
    conversations = turns(linked)
    gathers: dict[Lot, Gather] = defaultdict(Gather)
    rows: dict[str, _Row] = {}
    waiting: dict[Lot, list[str]] = defaultdict(list)
    sharers: list[Sharer] = []
    for name, (path, call) in calls.items():
        row = known(*places[name]) if name in places else None
        if row is None or not asked(row.lot):
            left["not in the ledger, without a price, or not asked for"] += 1
            continue
        if row.deferrable:
            waiting[row.lot].append(name)
        rows[name] = row._replace(deferrable=row.deferrable and name not in conversations.known)
        gathers[row.lot].add(path, [call])
        if call.billed and call.billed.cached and not isinstance(call.weights, int):
            sizes = apportion(call.weights, call.prompt)
            steps = tuple(zip(call.hashes, sizes, strict=True))
            sharers.append(Sharer(row.lot, call.at_us, row.space, steps, call.billed))
    borrowed = lent(sharers)
    found = {
        lot: traffic._replace(borrowed=borrowed.get(lot, {}), waiting=_waiting(waiting[lot], conversations))
        for lot, gather in gathers.items()
        if (traffic := _traffic(gather, bedrock_log, "bodies", rows))
    }
    return found, bad, left


def _waiting(names: list[str], conversations: Turns) -> Waiting:
    return Waiting(
        len(names), conversations.known.intersection(names), len(conversations.doubtful.intersection(names))
    )


def _places(ledger: Ledger, names: list[str]) -> dict[str, tuple[int, int]]:
    """Context and tag set of the calls with these request ids."""
    con = ledger.connection
    con.register("savings_names", arrow({"request_id": names}, {"request_id": "string"}))
    found = ledger.sift(
        "savings_named",
        """SELECT request_id, ctx, tags, sum(calls)::BIGINT AS calls FROM savings_named
           SEMI JOIN savings_wanted USING (request_id) GROUP BY request_id, ctx, tags""",
        ("request_id", "ctx", "tags", "calls"),
        (START, FOREVER),
        savings_wanted=con.table("savings_names"),
    )
    con.register("savings_places", found)
    rows = con.execute(
        "SELECT request_id, ctx, tags FROM savings_places GROUP BY ALL HAVING sum(calls) > 0 ORDER BY ALL"
    )
    return {name: (ctx, tags) for name, ctx, tags in rows.fetchall()}


# --- calls to a trace ----------------------------------------------------------------------------------------------


def _traffic(gather: Gather, form: Any, told_by: str, rows: Mapping[str, _Row]) -> Traffic | None:
    log = gather.log("", form)
    if not log.trace.requests:
        return None
    # as the log puts them: each namespace by time, then all of them by time
    ordered = [call for each in gather.calls.values() for call in each]
    at_us = np.array([call.at_us for call in ordered], np.int64)
    ordered = [ordered[i] for i in np.argsort(at_us, kind="stable").tolist()]
    columns = np.array([list(call.billed or Vector()) for call in ordered], np.int64).T
    names = [_cluster(call, told_by, rows) for call in ordered]
    clusters, cluster = np.unique(np.array(names), return_inverse=True)
    whole = sum(not name.startswith("hour ") for name in clusters.tolist())
    notes = tuple(f"{count:,} requests: {why}" for why, count in log.mended.items())
    waits = np.array([call.id in rows and rows[call.id].deferrable for call in ordered], bool)
    settled, moved = _settled(gather, form)
    return Traffic(
        log.trace,
        Vector(*columns),
        cluster.astype(np.int64),
        whole,
        waits,
        _today(ordered, told_by),
        told_by,
        notes,
        settled=settled,
        moved=moved,
    )


def _settled(gather: Gather, form: Any) -> tuple[Trace | None, tuple[Place, ...]]:
    """The trace of the same requests as they would be sent settled, and what is moved for that."""
    seen: dict[tuple[str, str], list[str]] = defaultdict(list)
    for call in (call for each in gather.calls.values() for call in each if call.settled):
        assert call.settled is not None
        for path, kind, name in dict.fromkeys(call.settled.cuts):
            seen[path, kind].append(name)
    if not seen:
        return None, ()
    again = Gather(
        calls={space: [_as_settled(call) for call in each] for space, each in gather.calls.items()}
    )
    places = (Place(path, kind, len(names), len(set(names))) for (path, kind), names in seen.items())
    return again.log("", form).trace, tuple(sorted(places, key=lambda one: (-one.calls, one)))


def _as_settled(call: Call) -> Call:
    made = call.settled
    if made is None:
        return call
    return call._replace(
        hashes=made.hashes, weights=made.weights, anchors=made.anchors, system=made.system, settled=None
    )


def _cluster(call: Call, told_by: str, rows: Mapping[str, _Row]) -> str:
    """The session; calls without one hang together by the hour."""
    session = call.namespace[0] if told_by == "counts" else rows[call.id].session
    return session or f"hour {call.at_us // _HOUR_US}"


def _today(calls: list[Call], told_by: str) -> Policy:
    """How the prompts are marked, as most of them are."""
    if told_by == "counts":
        five = sum(call.billed.cache_write_5m for call in calls if call.billed)
        hour = sum(call.billed.cache_write_1h for call in calls if call.billed)
        return Policy(end_ttl_us=(HOUR_US if hour > five else FIVE_US) if five + hour else 0)
    marked: Counter[tuple[int, int]] = Counter()
    for call in calls:
        system = end = 0
        for blocks, ttl in call.marks:
            lives = HOUR_US if ttl == "1h" else FIVE_US
            if 0 < blocks <= call.system:
                system = lives
            else:
                end = lives
        marked[system, end] += 1
    system, end = marked.most_common(1)[0][0]
    return Policy(system_ttl_us=system, end_ttl_us=end)
