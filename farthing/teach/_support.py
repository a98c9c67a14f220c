"""Request ids of a fault, and the text of a support case about it. Ids are AWS's own, and may be sent to it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from farthing.book import Resolved
from farthing.cells import Question
from farthing.ledger import Ledger
from farthing.money import show, usd
from farthing.teach._faults import Fault
from farthing.teach._kinds import KINDS
from farthing.teach._places import ended_badly
from farthing.usage import EPOCH, Facts, Sku

MOST_IDS = 5
_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def name_requests(faults: Iterable[Fault], ledger: Ledger, question: Question) -> None:
    """Gives each fault some request ids of calls that it is about, where sources had them from AWS."""
    con = ledger.connection
    con.register("fault_rows", ledger.rows())
    contexts: list[tuple[int, str, Sku, str]] = []
    for ctx, *said in ledger.contexts().fetchall():
        facts = Facts(*said)
        place = question.book.place(facts, question.profiles, question.assume)
        if isinstance(place, Resolved) and place.sku.platform == "bedrock":
            contexts.append((ctx, facts.account, place.sku, facts.status))
    for fault in faults:
        found: dict[str, None] = {}
        for part in fault.parts:
            price = part.seen_at or part.place.price
            codes = [
                ctx
                for ctx, account, sku, status in contexts
                if account == price.account
                and sku == price.sku
                and (status in part.statuses if part.statuses else not ended_badly(status))
            ]
            used = "true" if part.statuses else f"{price.meter} > 0"
            rows = con.execute(
                f"""SELECT request_id FROM fault_rows WHERE list_contains(?, ctx) AND day = ? AND NOT reversal
                    AND {used} AND regexp_full_match(request_id, '{_UUID}')
                    ORDER BY "at", request_id LIMIT {MOST_IDS}""",
                [codes, (part.place.day - EPOCH.date()).days],
            ).fetchall()
            found |= dict.fromkeys(request_id for (request_id,) in rows)
            if len(found) >= MOST_IDS:
                break
        fault.request_ids = list(found)[:MOST_IDS]


def support_case(fault: Fault) -> str:
    """What to send: subject, what was billed, what is documented, what is asked for. Nothing of prompts or callers."""
    kind = KINDS[fault.kind]
    detail = f" ({fault.detail})" if fault.detail else ""
    lines = [
        f"Subject: Amazon Bedrock, {fault.model}: {kind.says[0].lower()}{kind.says[1:]}",
        "",
        f"{kind.says}{detail}.",
        f"Account: {fault.account or 'all of the bill'}. Model: {fault.model}. Days (UTC): {days_of(fault.days)}.",
        f"Amount: USD {usd(fault.picos)} of the USD {usd(fault.paid)} that {fault.tokens:,} tokens were billed at.",
        f"Usage types: {', '.join(fault.usage_types)}.",
    ]
    if fault.request_ids:
        lines.append(f"Request ids, for example: {', '.join(fault.request_ids)}.")
    lines += ["", f"{kind.documented} Source: {kind.source}.", "", "By day:"]
    for day in fault.days:
        of_day = [part for part in fault.parts if part.place.day == day]
        picos, tokens = sum(part.picos for part in of_day), sum(part.tokens for part in of_day)
        paid = sum(part.paid for part in of_day)
        lines.append(f"  {day}  {tokens:>16,} tokens billed at USD {usd(paid)}: USD {usd(picos)} too much")
    if not fault.sure:
        lines += ["", "We conclude this from totals of the day, and may have missed another reason."]
    return "\n".join([*lines, "", kind.ask])


def days_of(days: list[date]) -> str:
    if len(days) == 1:
        return f"{days[0]}"
    return f"{days[0]} to {days[-1]}, {len(days)} days"


def one_line(fault: Fault) -> str:
    return f"{show(fault.picos):>14}  {fault.account or 'all accounts'}  {fault.model}  {days_of(fault.days)}"
