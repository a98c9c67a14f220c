"""The billing machine by scripts that read like the documentation, each under the rule it shows.

A line is a request: when, its prompt in blocks, what it is billed. `*` behind a block is a breakpoint of five
minutes, `!` one of an hour; `1-10` stands for ten blocks. A block has 1,000 tokens, but for those named `small`: 100.
"""

import re

import pytest

from farthing.cache import FIVE_US, HOUR_US, Refused, Request, Semantics, State, bill
from farthing.meters import Vector

ANTHROPIC = "platform.claude.com/docs/en/build-with-claude/prompt-caching"
AWS = "docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html"
MINIMUM = 1_000
UNITS = {"s": 1, "m": 60, "h": 3600}

RULES = [
    (
        "Marking a block with `cache_control` writes exactly one cache entry: a hash of the prefix ending there.",
        f"{ANTHROPIC}, How automatic prefix checking works",
        """
        0s  A B* C  -> 5m A B, plain C
        1s  A B* D  -> read A B, plain D
        2s  A*      -> 5m A
        """,
    ),
    (
        "Cache reads look backward for entries that prior requests wrote.",
        f"{ANTHROPIC}, How automatic prefix checking works",
        """
        0s  A B*      -> 5m A B
        1s  A B C*    -> read A B, 5m C
        2s  A B C D*  -> read A B C, 5m D
        3s  A B E*    -> read A B, 5m E
        """,
    ),
    (
        "It is looking for prior writes, not for stable content: a breakpoint on a block that changes never reads.",
        f"{ANTHROPIC}, Common mistake: Breakpoint on content that changes every request",
        """
        0s  A B*  -> 5m A B
        1s  A C*  -> 5m A C
        """,
    ),
    (
        (
            "Turn 2: block 15 has no entry, so the system walks back to block 10 and finds the turn-1 entry. "
            "Turn 3: checks 20 positions (blocks 35 through 16) and finds nothing."
        ),
        f"{ANTHROPIC}, Example: Lookback in a growing conversation",
        """
        0s  1-10*   -> 5m 1-10
        1s  1-15*   -> read 1-10, 5m 11-15
        2s  1-35*   -> 5m 1-35
        """,
    ),
    (
        "Adding a second breakpoint at block 15 starts a second lookback window there, which finds the turn-2 entry.",
        f"{ANTHROPIC}, Example: Lookback in a growing conversation",
        """
        0s  1-15*        -> 5m 1-15
        1s  1-15* 16-35* -> read 1-15, 5m 16-35
        """,
    ),
    (
        "At most 20 positions per breakpoint, counting the breakpoint itself as the first.",
        f"{ANTHROPIC}, How automatic prefix checking works",
        """
        0s  1-16*  -> 5m 1-16
        1s  1-35*  -> read 1-16, 5m 17-35
        """,
    ),
    (
        (
            "By default, the cache has a 5-minute lifetime. The cache is refreshed for no additional cost each time "
            "the cached content is used."
        ),
        ANTHROPIC,
        """
        0s    A*  -> 5m A
        5m    A*  -> read A
        10m   A*  -> read A
        15m1s A*  -> 5m A
        """,
    ),
    (
        "The lifetime is measured from the start of the request that writes or reads the cache entry.",
        ANTHROPIC,
        """
        0s    A*   -> 5m A
        4m    A B* -> read A, 5m B
        8m    A*   -> read A
        9m30s A B* -> read A, 5m B
        """,
    ),
    (
        "5-minute and 1-hour: the longer lives an hour.",
        f"{ANTHROPIC}, 1-hour cache duration",
        """
        0s      A!  -> 1h A
        60m     A!  -> read A
        120m1s  A!  -> 1h A
        """,
    ),
    (
        (
            "A: the highest cache hit; B: the highest 1-hour block after A, or A; C: the last block. "
            "Charged: reads for A, 1-hour writes for (B - A), 5-minute writes for (C - B)."
        ),
        f"{ANTHROPIC}, Mixing different TTLs",
        """
        0s  A!             -> 1h A
        1s  A! B C! D E* F -> read A, 1h B C, 5m D E, plain F
        2s  A! B C D*      -> read A B C, 5m D
        """,
    ),
    (
        "A 1-hour breakpoint before A writes nothing: what was written for five minutes stays so.",
        f"{ANTHROPIC}, Mixing different TTLs",
        """
        0s  A*     -> 5m A
        1s  A! B*  -> read A, 5m B
        6m  A! B*  -> 1h A, 5m B
        """,
    ),
    (
        (
            "Shorter prompts cannot be cached, even if marked with `cache_control`. Any requests to cache fewer than "
            "this number of tokens will be processed without caching, and no error is returned."
        ),
        f"{ANTHROPIC}, Cache limitations; cumulative: {AWS}",
        """
        0s  small1 small2*            -> plain small1 small2
        1s  small1 small2*            -> plain small1 small2
        2s  small1-9* small10* small11 -> 5m small1-10, plain small11
        3s  small1-9* small10* small12 -> read small1-10, plain small12
        """,
    ),
    (
        "Cache breakpoints do not add cost.",
        f"{ANTHROPIC}, Understanding cache breakpoint costs",
        """
        0s  A* B* C* D*  -> 5m A B C D
        1s  A* B* C* D*  -> read A B C D
        2s  A B E*       -> read A B, 5m E
        """,
    ),
]


def microseconds(text):
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)([smh])", text)) * 1_000_000


def expand(words):
    """Blocks of words like `A`, `B*`, `1-10!` and `small1-9*`: names, and breakpoints as (position, TTL)."""
    names, breakpoints = [], []
    for word in words.split():
        block, mark = word.rstrip("*!"), word[-1] if word[-1] in "*!" else ""
        if many := re.fullmatch(r"(\D*)(\d+)-(\d+)", block):
            kind, first, last = many.groups()
            names += [f"{kind}{n}" for n in range(int(first), int(last) + 1)]
        else:
            names.append(block)
        if mark:
            breakpoints.append((len(names) - 1, HOUR_US if mark == "!" else FIVE_US))
    return names, breakpoints


def request(at, words, delimiter=" "):
    names, breakpoints = expand(words)
    path = [(delimiter.join(names[: n + 1]), tokens([name])) for n, name in enumerate(names)]
    return Request(microseconds(at), path, breakpoints)


def tokens(names):
    return sum(100 if name.startswith("small") else 1_000 for name in names)


def billed(expected):
    """`read A B, 5m C` as a Vector."""
    meters = {"read": "cache_read", "5m": "cache_write_5m", "1h": "cache_write_1h", "plain": "input"}
    found = {}
    for part in expected.split(","):
        meter, blocks = part.strip().split(" ", 1)
        found[meters[meter]] = tokens(expand(blocks)[0])
    return Vector(**found)


def play(script, semantics=Semantics()):  # noqa: B008 - a tuple
    """Each line of a script, what it is billed and what it should be."""
    state: State = {}
    for line in script.strip().splitlines():
        at, rest = line.strip().split(maxsplit=1)
        words, expected = rest.split("->")
        found, state = bill(state, request(at, words), MINIMUM, semantics)
        yield line.strip(), found.tokens, billed(expected)


@pytest.mark.parametrize(("rule", "source", "script"), RULES, ids=[rule[:40] for rule, _, _ in RULES])
def test_rule(rule, source, script):
    for line, found, expected in play(script):
        assert found == expected, f"{line}\n{rule}\n{source}"


# What is not documented, and its two answers.
CHOICES = [
    (
        "an entry of an hour over a segment of five minutes",
        {"entries_stand_alone": True},
        "0s A* -> 5m A; 1s A B! -> read A, 1h B; 10m A B! -> {}",
        ("1h A B", "read A B"),
    ),
    (
        "a hit on a longer prefix refreshes the shorter one, though nothing marks it",
        {"refreshes_shorter": False},
        "0s A* -> 5m A; 1s A B* -> read A, 5m B; 4m A B C* -> read A B, 5m C; 8m A D* -> {}",
        ("read A, 5m D", "5m A D"),
    ),
    (
        "a breakpoint in what is read makes an entry",
        {"marks_inside_a_hit": True},
        "0s A B* -> 5m A B; 1s A* B* -> read A B; 2s A C* -> {}",
        ("5m A C", "read A, 5m C"),
    ),
    (
        "a segment of an hour, written for five minutes again",
        {"keeps_the_longer": True},
        "0s A B! -> 1h A B; 1s A C* -> 5m A C; 10m A B! -> {}",
        ("1h A B", "read A B"),
    ),
    (
        "a shorter window",
        {"lookback": 2},
        "0s A* -> 5m A; 1s A B C* -> {}",
        ("read A, 5m B C", "5m A B C"),
    ),
]


@pytest.mark.parametrize(("what", "choice", "script", "answers"), CHOICES, ids=[what for what, *_ in CHOICES])
def test_choice(what, choice, script, answers):
    for semantics, answer in zip((Semantics(), Semantics(**choice)), answers, strict=True):
        for line, found, expected in play(script.format(answer).replace("; ", "\n"), semantics):
            assert found == expected, f"{line} where {what}: {choice}"


def test_without_a_delay_what_is_written_can_be_read_at_once():
    for line, found, expected in play("0s A* -> 5m A\n0s A* B -> read A, plain B"):
        assert found == expected, line


def test_an_entry_can_be_read_after_the_first_token_of_its_writer():
    """'A cache entry only becomes available after the first response begins' (Anthropic, Cache limitations)."""
    script = """
    0s  A* -> 5m A
    1s  A* -> 5m A
    2s  A* -> read A
    3s  A* -> read A
    """
    # The second writer does not hide what the first wrote: it is there from second 2, not 3.
    for line, found, expected in play(script, Semantics(delay_us=2_000_000)):
        assert found == expected, line


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("A* B* C* D* E*", "5 breakpoints: a request has at most 4"),
        ("A* B!", "a 1h breakpoint comes after a 5m one: the longer must be first"),
    ],
)
def test_refused(words, why):
    with pytest.raises(Refused, match=why):
        bill({}, request("0s", words), MINIMUM)


@pytest.mark.parametrize("position", [-1, 2])
def test_a_breakpoint_is_in_the_prompt(position):
    with pytest.raises(Refused, match="outside the prompt, which has 2 places"):
        bill({}, request("0s", "A B")._replace(breakpoints=[(position, FIVE_US)]), MINIMUM)


def test_other_lifetimes_and_orders_are_refused():
    with pytest.raises(Refused, match="five minutes or for an hour"):
        bill({}, request("0s", "A")._replace(breakpoints=[(0, 7)]), MINIMUM)
    with pytest.raises(Refused, match="not in the order"):
        bill({}, request("0s", "A B")._replace(breakpoints=[(1, FIVE_US), (0, FIVE_US)]), MINIMUM)


def test_the_state_passed_in_stays_as_it_was():
    _, kept = bill({}, request("0s", "A B*"), MINIMUM)
    before = dict(kept)
    _, after = bill(kept, request("1s", "A B C*"), MINIMUM)
    assert kept == before
    assert after.keys() - kept.keys() == {"A B C"}
    assert after["A B"].expires_us == kept["A B"].expires_us + 1_000_000


@pytest.mark.parametrize(("size", "written"), [(MINIMUM - 1, 0), (MINIMUM, MINIMUM)])
def test_one_token_less_than_the_minimum_is_not_cached(size, written):
    found, _ = bill({}, Request(0, [("A", size)], [(0, FIVE_US)]), MINIMUM)
    assert (found.tokens.cache_write_5m, found.tokens.prompt) == (written, size)


def test_what_nothing_marks_is_not_kept():
    _, kept = bill({}, request("0s", "A B* C"), MINIMUM)
    assert kept.keys() == {"A", "A B"}
    assert bill({}, request("0s", "A B C"), MINIMUM)[1] == {}


def test_output_and_a_last_block_that_is_not_full_are_billed_as_they_are():
    found, _ = bill({}, request("0s", "A*")._replace(output=7, plain=33), MINIMUM)
    assert found.tokens == Vector(input=33, output=7, cache_write_5m=1_000)
    assert (found.tokens.prompt, found.read_to) == (1_033, -1)


def test_a_request_without_a_path():
    found, kept = bill({}, Request(0, [], plain=50), MINIMUM)
    assert (found.tokens, kept) == (Vector(input=50), {})


def test_counts_are_ints():
    found, kept = bill({}, request("0s", "A*"), MINIMUM)
    assert {type(count) for count in found.tokens} == {int}
    assert {type(value) for row in kept.values() for value in row} == {int}
    assert type(found.read_to) is int
