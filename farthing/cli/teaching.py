"""What the bill teaches: a contract book, teams, and faults to report. Nothing of the user's is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from farthing.cli._app import BadInput, app
from farthing.cli._bills import Cost, Json, Reached, parse_month, read_statement
from farthing.cli._bills import faults as bad_lines
from farthing.cli._shared import (
    default_ledger,
    is_ledger,
    ledger_to_read,
    load_config,
    parse_assume,
    read_profiles,
    write_json,
)
from farthing.money import show, usd

if TYPE_CHECKING:
    from farthing.cells import Question
    from farthing.config import Config
    from farthing.ledger import Ledger
    from farthing.offers import Offer
    from farthing.statement import Statement
    from farthing.teach import Fault, Learned, Rerated, Suggested

_Bill = Annotated[list[str], Parameter(help="The bill: files, folders or s3:// prefixes.", negative="")]
_Month = Annotated[str, Parameter(help="Only this month: 2026-10.")]
_Ledger = Annotated[str, Parameter(help="Ledger of the same days; the default one, if there is one.")]
_Config = Annotated[Path | None, Parameter(help="farthing.toml: ledger, profiles, teams, contracts.")]


@app.command
def learn(
    *,
    statement: _Bill,
    month: _Month = "",
    ledger: _Ledger = "",
    config: _Config = None,
    tag: Annotated[str, Parameter(help="The tag that names teams; `team` or the like if left out.")] = "",
    out: Annotated[Path | None, Parameter(help="Write the contract book there.")] = None,
    teams_out: Annotated[Path | None, Parameter(help="Write the teams there, for farthing.toml.")] = None,
    force: Annotated[bool, Parameter(help="Overwrite files.", negative="")] = False,
    cost: Cost = "unblended",
    reached: Reached = Reached(),  # noqa: B008 - it is not changed
    json: Json = False,
) -> int:
    """What a bill teaches: negotiated rates as a contract book, and teams for profiles, principals and accounts."""
    from farthing import teach

    for path in (out, teams_out):
        if path and path.exists() and not force:
            raise BadInput(f"{path}: is there already; --force overwrites it")
    said = load_config(config)
    billed = read_statement(statement, cost, month, reached=reached)
    learned = teach.learn(billed)
    contract = teach.as_toml(learned, billed.book)
    rerated = teach.rerate(learned, billed.book, contract)
    with _ledger_beside(ledger, said) as books:
        teams = teach.suggest_teams(billed, books, _question(billed, month, said), tag)
    for path, text in ((out, contract), (teams_out, teach.teams_toml(teams))):
        if path:
            _write(path, text)
    if json:
        write_json(_learned_json(billed, learned, rerated, contract) | {"teams": _teams_json(teams)})
    else:
        _print_learned(billed, learned, rerated, "" if out else contract)
        if learned.span and not teams_out:
            print(f"\n{teach.teams_toml(teams)}", end="")
        if out and contract:
            print(f'the contract book is in {out}; once reviewed: contracts = ["{out}"] in farthing.toml')
        if teams_out:
            print(f"the teams are in {teams_out}")
    return bad_lines(billed)


@app.command
def faults(
    *,
    statement: _Bill,
    month: _Month = "",
    ledger: _Ledger = "",
    config: _Config = None,
    contract: Annotated[
        list[Path] | None, Parameter(help="Private offers; those of farthing.toml if left out.", negative="")
    ] = None,
    assume: Annotated[list[str] | None, Parameter(negative="", help="As in reports.")] = None,
    profiles: Annotated[Path | None, Parameter(help="As in reports.")] = None,
    cost: Cost = "unblended",
    reached: Reached = Reached(),  # noqa: B008 - it is not changed
    json: Json = False,
) -> int:
    """What looks like AWS's mistake, with dollars, dates and the text of a support case. Exit 1 if any is certain."""
    from farthing import teach
    from farthing.offers import load_offers

    said = load_config(config)
    offers = load_offers(contract or said.contracts)
    billed = read_statement(statement, cost, month, reached=reached)
    question = _question(billed, month, said, parse_assume(assume or ()), read_profiles(profiles))
    with _ledger_beside(ledger, said) as books:
        found = teach.find_faults(billed, books, question, offers)
        if books:
            teach.name_requests(found, books, question)
    if json:
        write_json({"faults": [_fault_json(fault) for fault in found], "notes": billed.loaded.notes})
    else:
        _print_faults(found, billed, offers, told=books is not None)
    return bad_lines(billed) or int(any(fault.sure and fault.picos > 0 for fault in found))


@contextmanager
def _ledger_beside(named: str, config: Config) -> Iterator[Ledger | None]:
    """The ledger named, or the default one; None where there is none, since a bill can be read alone."""
    if named or is_ledger(default_ledger(config)):
        with ledger_to_read(named, config) as found:
            yield found
    else:
        yield None


def _question(
    billed: Statement,
    month: str,
    config: Config,
    assume: dict[str, str] | None = None,
    profiles: dict[str, str] | None = None,
) -> Question:
    """The days of the bill, which are UTC."""
    from farthing.cells import Question
    from farthing.teach import span_of

    since, until = parse_month(month) if month else span_of(billed) or (None, None)
    return Question(
        since,
        until,
        assume=assume or {},
        profiles={**config.profiles, **(profiles or {})},
        book=billed.book,
        config=config,
    )


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror or error}") from error


# --- rates ---------------------------------------------------------------------------------------------------------


def _print_learned(billed: Statement, learned: Learned, rerated: Rerated, contract: str) -> None:
    from farthing.teach import KINDS, summed

    if learned.span is None:
        print("no tokens of Claude in it")
        _print_notes(billed)
        return
    listed, paid = show(rerated.listed_picos), show(rerated.billed_picos)
    print(f"{learned.span[0]} to {learned.span[1]}: {paid} billed for tokens, {listed} at list")
    for kind, says in KINDS.items():
        picos, at_list, lines = summed(learned.lines[kind])
        if lines:
            print(f"  {show(picos):>16}  of {show(at_list):>16}  {says} ({lines:,} lines)")
    if billed.apart:
        print("apart from these, and in no rate:")
        sums: dict[str, int] = {}
        for entry in billed.apart:
            sums[entry.kind] = sums.get(entry.kind, 0) + entry.picos
        for name, picos in sums.items():
            print(f"  {show(picos):>16}  {name}")
    if billed.cost == "net":
        print("  note: net costs have an enterprise discount (EDP) in them, and so have these rates")
    _print_notes(billed)
    for note in learned.notes:
        print(f"  note: {note}")
    left = rerated.billed_picos - rerated.contracted_picos
    print(f"re-rated by what was found: {show(rerated.contracted_picos)}; {show(left)} less than was billed"
          if left > 0 else
          f"re-rated by what was found: {show(rerated.contracted_picos)}; {show(-left)} more than was billed"
          if left else f"re-rated by what was found: {show(rerated.contracted_picos)}, as it was billed")  # fmt: skip
    for kind, picos in rerated.beyond.items():
        print(f"  {show(picos):>16}  {KINDS[kind]}")
    if not learned.found:
        print("no negotiated rates in it")
    elif contract:
        print(f"\n{contract}", end="")


def _print_notes(billed: Statement) -> None:
    for note in billed.loaded.notes:
        print(f"  note: {note}")


def _learned_json(billed: Statement, learned: Learned, rerated: Rerated, contract: str) -> dict[str, Any]:
    from farthing.teach import summed

    lines = {}
    for kind, of_kind in learned.lines.items():
        picos, at_list, count = summed(of_kind)
        beyond = rerated.beyond.get(kind, 0)
        lines[kind] = {
            "billed_usd": usd(picos), "listed_usd": usd(at_list), "beyond_usd": usd(beyond), "lines": count,
        }  # fmt: skip
    return {
        "listed_usd": usd(rerated.listed_picos),
        "contracted_usd": usd(rerated.contracted_picos),
        "billed_usd": usd(rerated.billed_picos),
        "difference_usd": usd(rerated.billed_picos - rerated.contracted_picos),
        "lines": lines,
        "apart": [
            {"kind": entry.kind, "account": entry.account, "usd": usd(entry.picos)} for entry in billed.apart
        ],
        "offers": [
            {
                "name": found.offer.name,
                "accounts": sorted(found.offer.accounts),
                "starts": found.offer.starts.isoformat(),
                "ends": found.offer.ends.isoformat() if found.offer.ends else None,
                "rates": [
                    _rule_json(rule)
                    | {
                        "lines": seen.lines, "days": seen.days, "billed_usd": usd(seen.picos),
                        "listed_usd": usd(seen.listed),
                    }
                    for rule, seen in zip(found.offer.rules, found.evidence, strict=True)
                ],
            }
            for found in learned.found
        ],
        "contract_toml": contract,
        "notes": [*billed.loaded.notes, *learned.notes],
    }  # fmt: skip


def _rule_json(rule: Any) -> dict[str, Any]:
    from farthing.money import mtok_usd
    from farthing.offers import plain

    keys = ("model", "meter", "endpoint", "mode", "long_prompt")
    off = {"percent_off": plain(100 * (1 - rule.share))} if rule.share is not None else {}
    rate = off or {"usd_per_million": mtok_usd(rule.rate)}
    return {key: value for key in keys if (value := getattr(rule, key)) not in ("", None)} | rate


def _teams_json(found: Suggested) -> dict[str, Any]:
    from farthing.teach import teams_toml

    return {
        "tag": found.tag,
        "claims": {team: usd(picos) for team, picos in found.claims.items()},
        "members": [
            {"team": team, "kind": one.kind, "name": one.name, "usd": usd(one.picos), "why": one.why}
            for team, members in found.teams.items()
            for one in members
        ],
        "conflicts": [
            {"kind": one.kind, "name": one.name, "usd": usd(one.picos), "why": one.why}
            for one in found.conflicts
        ],
        "unassigned": [{"name": name, "usd": usd(picos)} for name, picos in found.unassigned],
        "toml": teams_toml(found),
    }


# --- faults --------------------------------------------------------------------------------------------------------


def _fault_json(fault: Fault) -> dict[str, Any]:
    from farthing.teach import support_case
    from farthing.teach._kinds import KINDS as SAID

    kind = SAID[fault.kind]
    return {
        "fault": fault.kind,
        "says": kind.says,
        "usd": usd(fault.picos),
        "billed_usd": usd(fault.paid),
        "certain": fault.sure,
        "account": fault.account,
        "model": fault.model,
        "detail": fault.detail,
        "days": [day.isoformat() for day in fault.days],
        "tokens": fault.tokens,
        "usage_types": fault.usage_types,
        "request_ids": fault.request_ids,
        "documented": kind.documented,
        "source": kind.source,
        "case": support_case(fault) if fault.picos > 0 else "",
    }


def _print_faults(found: Sequence[Fault], billed: Statement, offers: Sequence[Offer], *, told: bool) -> None:
    from farthing.teach import support_case
    from farthing.teach._kinds import KINDS as SAID
    from farthing.teach._support import one_line

    against = "list prices" if not offers else f"list prices and {len(offers)} private offers"
    beside = "the ledger beside it" if told else "no ledger beside it, which tells more"
    certain = sum(fault.picos for fault in found if fault.sure and fault.picos > 0)
    print(f"{show(billed.billed_picos)} billed for tokens, by {against}, {beside}")
    _print_notes(billed)
    claims = [fault for fault in found if fault.picos > 0]
    asked = sum(fault.picos for fault in claims) - certain
    many = f"{len(claims)} fault{'s' * (len(claims) > 1)}; {show(certain)} certain, {show(asked)} to be asked about"
    print(many if claims else "no faults found")
    for number, fault in enumerate(claims, 1):
        detail = f" ({fault.detail})" if fault.detail else ""
        print(f"{number:>3}  {one_line(fault)}{'' if fault.sure else '  (to be asked about)'}")
        print(f"     {SAID[fault.kind].says}{detail}")
    for fault in (fault for fault in found if fault.picos <= 0):
        print(f"in your favour  {one_line(fault)}  {SAID[fault.kind].says} ({fault.detail})")
    for number, fault in enumerate(claims, 1):
        print(f"\n--- to send to AWS support: {number} ---\n{support_case(fault)}")
