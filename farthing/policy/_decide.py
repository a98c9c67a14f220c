"""What levers do with a request: decided from what is known before it is sent, and from nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from farthing.book import Book, Card, Resolved, Unpriced, default_book
from farthing.config import claim_by_facts, claims, fingerprint
from farthing.outbox import Decision
from farthing.policy._file import LEVERS, Entry, Marker, Policy, instant
from farthing.usage import Facts, ModelId, Sku, parse_model_id

APPLIED, SHADOWED, REFUSED = "applied", "shadowed", "refused"
NOT_IN_SHARE = "not among the"  # how the reason begins where a canary leaves a call out
_NOTE = 300  # characters, as the outbox takes them


class Request(NamedTuple):
    """What is known of a request before it is sent. No text of it.

    `markers` are the client's own cache points and their places, in its order; `places` where one could be put
    (tools, system, end ...; empty: not known). `key` names the client's key; `pinned`: it may not leave its region.
    """

    model_id: str
    platform: str = ""
    region: str = ""
    account: str = ""
    principal: str = ""
    project: str = ""
    tags: Mapping[str, str] = {}
    mode: str = ""
    inference_geo: str = ""
    stream: bool = False
    key: str = ""
    session: str = ""
    pinned: bool = False
    markers: tuple[Marker, ...] = ()
    places: tuple[str, ...] = ()
    prompt_tokens: int | None = None


class Decided(NamedTuple):
    """What an entry does with a request. `change` is empty unless it is applied, or would be."""

    lever: str
    outcome: str  # applied, shadowed, refused
    reason: str
    entry: str
    change: Mapping[str, Any]

    def recorded(self) -> Decision:
        """As the outbox keeps it."""
        reason = f"{self.entry}: {self.reason}" if self.outcome != REFUSED else f"refused: {self.reason}"
        return Decision(self.lever, reason[:_NOTE], self.outcome == SHADOWED)


class _Asked(NamedTuple):
    """A request, taken apart once for all levers."""

    request: Request
    parsed: ModelId
    sku: Sku
    now: datetime
    book: Book
    batched: bool  # a lever before this one has made it a batch
    model: str  # that will be called, by a lever before this one


Decide = Callable[[Request, datetime], list[Decided]]
_Change = Mapping[str, Any]


class _No(Exception):
    """Why a lever leaves a request alone."""


def decide(policy: Policy, request: Request, now: datetime, book: Book | None = None) -> list[Decided]:
    """What the policy does with one request; who has many asks `decider` once."""
    return decider(policy, book or default_book())(request, now)


def decider(policy: Policy, book: Book) -> Decide:
    """A function from a request and the time to decisions, in the order of the levers."""
    entries: dict[str, list[Entry]] = {}
    for entry in sorted(policy.entries, key=lambda entry: LEVERS.index(entry.lever)):
        if entry.state != "off":
            entries.setdefault(entry.workload, []).append(entry)
    workload_of = _workloads(policy)
    periods = {entry.name: _period(entry) for each in entries.values() for entry in each}

    def decided(request: Request, now: datetime) -> list[Decided]:
        if not entries:
            return []
        parsed = parse_model_id(request.model_id)
        found = entries.get(workload_of(request, parsed))
        if not found:
            return []
        place = _place(book, request)
        if isinstance(place, Unpriced):
            return [Decided(entry.lever, REFUSED, place.reason, entry.name, {}) for entry in found]
        made: list[Decided] = []
        asked = _Asked(request, parsed, place.sku, now, book, place.sku.mode == "batch", place.sku.model)
        for entry in found:
            if entry.model in ("", place.sku.model):
                made.append(_decided(entry, asked, periods[entry.name]))
                asked = _after(asked, made[-1])
        return made

    return decided


def _place(book: Book, request: Request) -> Resolved | Unpriced:
    facts = Facts(
        "", platform=request.platform, model_id=request.model_id, region=request.region, mode=request.mode,
        inference_geo=request.inference_geo,
    )  # fmt: skip
    return book.place(facts)


def _workloads(policy: Policy) -> Callable[[Request, ModelId], str]:
    """Whose a request is, as reports say it of the call: by its tags, else by what its context tells."""
    by_tag, by_facts = claims(policy.workloads, "tags"), claim_by_facts(policy.workloads)

    def workload(request: Request, parsed: ModelId) -> str:
        tagged = [claim for key, value in request.tags.items() if (claim := by_tag(f"{key}={value}"))]
        if tagged:
            return min(tagged)[1]
        values = {
            "profiles": "" if parsed.base else parsed.profile,
            "principals": request.principal,
            "projects": request.project,
            "accounts": request.account,
        }
        return by_facts(values) or fingerprint(values)

    return workload


Period = tuple[datetime, datetime] | None  # from its approval to its end; None if nobody approved it


def _period(entry: Entry) -> Period:
    if not (entry.approver and entry.approved_at and entry.expires):
        return None
    return instant(entry.approved_at), instant(entry.expires)


def _decided(entry: Entry, asked: _Asked, period: Period) -> Decided:
    try:
        _may(entry, asked, period)
        change = _CHANGES[entry.lever](entry, asked)
    except _No as why:
        return Decided(entry.lever, REFUSED, str(why), entry.name, {})
    shadow = entry.state == "shadow"
    return Decided(entry.lever, SHADOWED if shadow else APPLIED, _said(change), entry.name, change)


def _said(change: _Change) -> str:
    """In words, for whoever reads the outbox."""
    if "markers" in change:
        return "cache points " + ", ".join(f"{marker.at} {marker.ttl}" for marker in change["markers"])
    if "cache_policy" in change:
        return f"cache points by {change['cache_policy']}"
    if "deadline" in change:
        return f"a batch within {change['deadline']}"
    return f"calls {change['model_id']}" if "model_id" in change else "calls the global endpoint"


def _after(asked: _Asked, made: Decided) -> _Asked:
    """What levers that come later have to know of what was done."""
    if made.outcome != APPLIED:
        return asked
    if made.lever == "batch":
        return asked._replace(batched=True)
    if made.lever == "model":
        parsed = parse_model_id(made.change["model_id"])
        request = asked.request._replace(model_id=made.change["model_id"])
        sku = asked.sku._replace(model=made.change["use"], zone="")
        return asked._replace(parsed=parsed, request=request, sku=sku, model=made.change["use"])
    return asked


# --- whether an entry holds for a request ----------------------------------------------------------------------------


def _may(entry: Entry, asked: _Asked, period: Period) -> None:
    if period is None:
        raise _No("nobody has approved it")
    if asked.now < period[0]:
        raise _No(f"approved at {entry.approved_at}, which is still to come: is the clock right?")
    if asked.now >= period[1]:
        raise _No(f"expired {entry.expires}")
    request = asked.request
    if entry.share < 100 and request.key not in entry.keys:
        drawn_by = request.key or request.session or request.principal
        if not drawn_by and entry.share:
            raise _No("nothing to draw it by: it has no key, session or principal")
        if draw(entry, drawn_by) >= entry.share:
            raise _No(f"{NOT_IN_SHARE} {entry.share} % of keys")


def draw(entry: Entry, name: str) -> int:
    """0 to 99, always the same for a name: who is in at one share is in at every larger one."""
    text = f"{entry.workload}\0{entry.model}\0{entry.lever}\0{name}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") % 100


# --- what each lever would change ------------------------------------------------------------------------------------


def _model(entry: Entry, asked: _Asked) -> _Change:
    parsed = asked.parsed
    _check_own(parsed)
    target = asked.book.models.get(entry.use)
    ids = [name for name in target.ids if name.startswith("anthropic.")] if target else []
    if asked.sku.platform != "bedrock":
        ids = [entry.use] if target else []
    if not ids:
        raise _No(f"{entry.use} is not known on {asked.sku.platform}")
    _check_price(asked, asked.sku._replace(model=entry.use, zone=""))
    routing = "" if parsed.routing in ("", "in_region") else parsed.routing.removeprefix("geo:")
    assert target
    if routing and asked.sku.platform == "bedrock" and routing not in target.platform("bedrock")["profiles"]:
        raise _No(f"{entry.use} has no profile for {routing}")
    return {"model_id": f"{routing}.{ids[0]}" if routing else ids[0], "use": entry.use}


def _batch(entry: Entry, asked: _Asked) -> _Change:
    if asked.request.stream:
        raise _No("its answer is streamed")
    if asked.batched:
        raise _No("it is a batch already")
    if asked.sku.mode != "on_demand":
        raise _No(f"it is sent in mode {asked.sku.mode}")
    _check_own(asked.parsed)
    _check_price(asked, asked.sku._replace(mode="batch"))
    return {"deadline": entry.deadline}


def _cache(entry: Entry, asked: _Asked) -> _Change:
    if asked.request.markers:
        raise _No("the client places cache points of its own")
    _check_cache(asked)
    if entry.cache_policy:
        return {"cache_policy": entry.cache_policy}
    places = asked.request.places
    kept = tuple(marker for marker in entry.markers if not places or marker.at in places)
    if not kept:
        raise _No(f"it has none of {', '.join(marker.at for marker in entry.markers)}")
    return {"markers": kept}


def _ttl(entry: Entry, asked: _Asked) -> _Change:
    markers = asked.request.markers
    if not markers:
        raise _No("the client places no cache points")
    _check_cache(asked)
    if all(marker.ttl == entry.ttl for marker in markers):
        raise _No(f"they live {entry.ttl} already")
    return {"markers": tuple(Marker(marker.at, entry.ttl) for marker in markers)}


def _check_cache(asked: _Asked) -> None:
    if asked.batched and asked.sku.platform == "bedrock":
        raise _No("a batch has no cache")
    minimum = asked.book.models[asked.model].cache_minimum(asked.sku.platform, asked.now.date())
    if minimum is None:
        raise _No(f"nobody has published from how many tokens {asked.model} caches")
    tokens = asked.request.prompt_tokens
    if tokens is not None and tokens < minimum:
        raise _No(f"{tokens:,} tokens, and {asked.model} caches from {minimum:,}")


def _endpoint(entry: Entry, asked: _Asked) -> _Change:
    parsed, sku = asked.parsed, asked.sku
    if asked.request.pinned:
        raise _No("the key is pinned to its region")
    if sku.endpoint == "global":
        raise _No("it is at the global endpoint already")
    if sku.endpoint == "govcloud":
        raise _No("GovCloud has no global endpoint")
    _check_own(parsed)
    at_aws = sku.platform == "bedrock"
    if at_aws and "global" not in asked.book.models[sku.model].platform("bedrock").get("profiles", ()):
        raise _No(f"{sku.model} has no global profile")
    _check_price(asked, sku._replace(endpoint="global", zone=""))
    if not at_aws:
        return {"inference_geo": ""}
    return {"model_id": f"global.{parsed.base}"}


def _check_own(parsed: ModelId) -> None:
    """An id that names no model stands for more than one: capacity, or a profile by which somebody is billed."""
    if parsed.kind == "provisioned-model":
        raise _No("its capacity is provisioned")
    if not parsed.base:
        raise _No(f"it calls the {parsed.kind} {parsed.profile}, which is not ours to leave")


def _check_price(asked: _Asked, sku: Sku) -> None:
    card = asked.book.find(sku, asked.now)
    if not isinstance(card, Card):
        raise _No(card.reason)


_CHANGES: dict[str, Callable[[Entry, _Asked], _Change]] = {
    "model": _model, "batch": _batch, "cache": _cache, "ttl": _ttl, "endpoint": _endpoint,
}  # fmt: skip
