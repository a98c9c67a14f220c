"""LiteLLM: spend logs as exported (JSON, CSV, `/spend/logs`), and the standard payload of its callbacks.

A row of the database and the payload of the same call share the response's id. LiteLLM counts cached tokens as
part of `prompt_tokens`; what it answered from a cache of its own was never sent, and so never billed. What it
thinks that the calls cost is a total to compare with.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any

import msgspec

from farthing.importers._batch import Reject
from farthing.importers._block import ZERO, Tokens, five, mode
from farthing.importers._documents import Fields, Record, first_keys, records
from farthing.importers._gateway import answer, claude, field, labels, latency_ms, mapping, moment, tags, text
from farthing.importers._open import MAX_LINE_BYTES, UNREADABLE, Numbered
from farthing.importers._read import Item, Lines, digest, reason
from farthing.usage import Facts, Rejected, Total, Usage, check_region, read_usage

PICODOLLARS = 10**12
CACHE_HIT = "litellm_cache_hit"
_OF_CALLS = {"call_type", "startTime"}
_SPENT = {"spend", "response_cost"}
_COLUMNS = re.compile(rb'"?[A-Za-z_]+"?(?:,"?[A-Za-z_]+"?){5,}\r?\n')


def sniff(head: bytes) -> bool:
    keys = first_keys(head) or _columns(head)
    return keys.keys() >= _OF_CALLS and not _SPENT.isdisjoint(keys)


def _columns(head: bytes) -> dict[str, str]:
    """The names in the first line of a CSV file."""
    line = _COLUMNS.match(head.lstrip())
    return {name.strip('"'): "" for name in line[0].decode().strip().split(",")} if line else {}


def read(lines: Lines, path: str = "") -> Iterator[Item]:
    lines = Numbered.of(lines)
    reader = _Reader()
    for record in _rows(lines):
        if isinstance(record, Reject):
            yield record
            continue
        try:
            usage = reader.usage(record.fields)
        except (Rejected, *UNREADABLE) as error:
            yield Reject(record.number, record.place + reason(error))
        else:
            if usage:
                yield usage
    yield from reader.totals()


# --- rows ----------------------------------------------------------------------------------------------------------


def _rows(lines: Numbered) -> Iterator[Record | Reject]:
    """The records of JSON, or the rows of CSV: a file that begins with a bare name is that."""
    first = next(iter(lines), None)
    if first is None:
        return
    header = first[1] + b"\n"
    if _columns(header):
        yield from _table(list(_columns(header)), lines)
    else:
        yield from records(chain([first], lines))


_NUMBERS = {"prompt_tokens", "completion_tokens", "total_tokens", "spend"}


def _table(names: list[str], lines: Numbered) -> Iterator[Record | Reject]:
    csv.field_size_limit(MAX_LINE_BYTES)
    table = csv.reader((line.decode("utf-8", "replace") + "\n" for _, line in lines), strict=True)
    while True:
        number = lines.number + 1
        try:
            cells = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield Reject(number, f"not CSV: {error}")
            continue
        if len(cells) != len(names):
            yield Reject(number, f"{len(cells)} cells, where the first line names {len(names)}")
            continue
        fields = {
            name: msgspec.Raw(cell.encode() if name in _NUMBERS else msgspec.json.encode(cell))
            for name, cell in zip(names, cells, strict=True)
            if cell not in ("", "NULL", "\\N")
        }
        yield Record(number, "", fields)


# --- a call --------------------------------------------------------------------------------------------------------


class _Reader:
    """Rows to usage, with one Facts object for all that are equal, and the money that LiteLLM counted."""

    def __init__(self) -> None:
        self._facts: dict[tuple[str, ...], Facts] = {}
        self._spent: dict[tuple[str, str], list[int]] = {}  # by platform and mode: first, last, picodollars

    def usage(self, row: Fields) -> Usage | None:
        """None if it is none: another vendor's call, or the sum of a batch."""
        model = text(field(row, "model"))
        found = claude(model, text(field(row, "custom_llm_provider")))
        if found is None or not model:
            return None
        platform, model_id, region = found
        metadata = mapping(field(row, "metadata"))
        at_us = moment(field(row, "startTime"))
        call = text(field(row, "call_type"))
        if "batch" in call:  # polled once or often, and each record is billed by itself
            self._spend(row, platform, "batch", at_us)
            return None
        status = _status(row, metadata)
        tokens, assumed, sent = (ZERO, (), "") if status else _counts(row, metadata)
        self._spend(row, platform, sent, at_us)
        request_id, message_id, gateway_id, also = _ids(row, metadata, at_us, status)
        session = text(field(row, "session_id", "trace_id", "litellm_trace_id"))
        facts = self._fact(
            platform,
            model_id,
            region or _region(text(field(row, "api_base"))),
            text(field(row, "user")) or text(metadata.get("user_api_key_user_id")),
            sent,
            "" if session == gateway_id else session,
            call,
            status,
            ",".join(assumed),
        )
        took_ms = latency_ms(at_us, field(row, "endTime"))
        return Usage(
            at_us,
            request_id,
            message_id,
            ((facts, tokens),),
            _tags(row, metadata),
            took_ms,
            gateway_id=gateway_id,
            also=also,
        )

    def _fact(self, *said: str) -> Facts:
        facts = self._facts.get(said)
        if facts is None:
            platform, model_id, region, user, sent, session, call, status, assumed = said
            facts = self._facts[said] = Facts(
                source="litellm",
                platform=platform,
                model_id=model_id,
                region=region,
                principal=user,
                mode=sent,
                session=session,
                operation=call,
                status=status,
                assumed=assumed,
            )
        return facts

    def _spend(self, row: Fields, platform: str, sent: str, at_us: int) -> None:
        try:
            picos = round(Decimal(str(field(row, "spend", "response_cost") or 0)) * PICODOLLARS)
        except (InvalidOperation, ValueError, OverflowError):
            return
        if picos > 0:
            first, last, sum_ = self._spent.setdefault((platform, sent), [at_us, at_us, 0])
            self._spent[platform, sent] = [min(first, at_us), max(last, at_us), sum_ + picos]

    def totals(self) -> Iterator[Total]:
        """What LiteLLM thinks the file's calls cost; it says so of each file, so two of them may overlap."""
        for (platform, sent), (first, last, picos) in sorted(self._spent.items()):
            yield Total("litellm", first, last + 1, "usd", picos, platform=platform, mode=sent, scope="file")


def _status(row: Fields, metadata: Mapping[str, Any]) -> str:
    """Why nothing was billed; "" where something was."""
    if str(field(row, "cache_hit")).lower() == "true":
        return CACHE_HIT
    if "failure" not in (field(row, "status"), metadata.get("status")):
        return ""
    error = mapping(field(row, "error_information")) or mapping(metadata.get("error_information"))
    return text(error.get("error_class")) or str(error.get("error_code") or "") or "failure"


_REQUEST_IDS = {"bedrock": "x-amzn-requestid", "anthropic": "request-id"}
_OF_A_MESSAGE = re.compile(r"msg_\w+")


def _ids(
    row: Fields, metadata: Mapping[str, Any], at_us: int, status: str
) -> tuple[str, str, str, tuple[str, ...]]:
    """The platform's own id of the request, the message's, LiteLLM's for the answer, and for the call."""
    hidden = mapping(field(row, "hidden_params"))
    given = text(field(row, "request_id", "id"))
    own = text(
        field(row, "litellm_call_id") or metadata.get("litellm_call_id") or hidden.get("litellm_call_id")
    )
    headers = mapping(hidden.get("additional_headers"))
    sent = {text(name).lower().removeprefix("llm_provider-"): value for name, value in headers.items()}
    request_id = next((text(sent[name]) for name in _REQUEST_IDS.values() if name in sent), "")
    if (
        status
    ):  # an answer out of the cache repeats its id, and each attempt of a call that failed has the call's
        given = given if "_cache_hit" in given else f"{given or own}@{at_us // 1_000_000}"
        return "" if status == CACHE_HIT else request_id, "", given, ()
    answered = answer(row, "response")[0]
    message_id = next((one for one in (given, answered) if _OF_A_MESSAGE.fullmatch(one)), "")
    gateway_id = given if given and given != message_id else own
    if not (request_id or message_id or gateway_id):
        request_id = digest(msgspec.json.encode(dict(sorted(row.items()))))
    return request_id, message_id, gateway_id, (own,) if own and own != gateway_id else ()


def _counts(row: Fields, metadata: Mapping[str, Any]) -> tuple[Tokens, tuple[str, ...], str]:
    """The five counts, what of them is assumed, and how the call was sent."""
    blocks = [mapping(metadata.get("usage_object")), answer(row, "response")[1]]
    blocks = [dict(block) for block in blocks if any(name.endswith("_tokens") for name in block)]
    untold: tuple[str, ...] = ()
    if not blocks:
        more = dict(mapping(metadata.get("additional_usage_values")))
        counted = {name: field(row, name) for name in ("prompt_tokens", "completion_tokens")}
        if all(count is None for count in counted.values()):
            raise Rejected("no token counts")
        untold = () if any("cache" in name or "details" in name for name in more) else ("cached",)
        blocks = [more | counted]
    tokens, assumed = _tokens(blocks[0])
    if "ttl" in assumed and len(blocks) > 1:
        other, unsettled = _tokens(blocks[1])
        if "ttl" not in unsettled and other[3] + other[4] == tokens[3] + tokens[4]:
            tokens, assumed = (*tokens[:3], *other[3:]), unsettled
    fast = blocks[0].get("speed") == "fast"
    return tokens, (*assumed, *untold), "fast" if fast else mode(None, blocks[0].get("service_tier"))


def _tokens(block: Mapping[str, Any]) -> tuple[Tokens, tuple[str, ...]]:
    read = read_usage(block)
    return five(map(sum, zip(*(part.tokens for part in read.parts), strict=True))), read.assumed


_HOST = re.compile(r"bedrock-(?:runtime|mantle)(?:-fips)?\.([a-z0-9-]+)\.")


def _region(address: str) -> str:
    host = _HOST.search(address)
    try:
        return check_region(host[1]) if host else ""
    except Rejected:
        return ""


def _tags(row: Fields, metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Who it was for. The key itself is not among it, nor its hash."""
    named = {
        "key": metadata.get("user_api_key_alias"),
        "team": metadata.get("user_api_key_team_alias"),
        "team_id": field(row, "team_id") or metadata.get("user_api_key_team_id"),
        "organization": metadata.get("user_api_key_org_alias") or field(row, "organization_id"),
        "user": field(row, "user") or metadata.get("user_api_key_user_id"),
        "end_user": field(row, "end_user") or metadata.get("user_api_key_end_user_id"),
    }
    try:
        words = list(labels(field(row, "request_tags")))
    except UNREADABLE:
        words = []
    return tags(named.items(), words, mapping(metadata.get("spend_logs_metadata")).items())
