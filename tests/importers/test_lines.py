"""Laws of the importers: however a file is cut, each line is read once; whatever a line holds, reading goes on."""

import json
import runpy
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.api import _Prices
from farthing.importers import Reject, _task, bedrock_log, claude_code, formats
from farthing.importers._block import Block, counts, says_something
from farthing.importers._documents import first_keys
from farthing.importers._open import Numbered, Source
from farthing.importers._read import instant, keys_at, objects, whole
from farthing.importers._wire import pack_frame, unpack_frame
from farthing.usage import Entry, Facts, Rejected, Total, Usage, read_usage

MAKE = runpy.run_path(str(Path(__file__).with_name("generate.py")))
LOG = MAKE["lines"]([MAKE["log"](n, MAKE["message"](n)) for n in range(9)])
TRANSCRIPT = MAKE["lines"]([MAKE["said"](n) for n in range(9)])

TEXTS = st.lists(
    st.sampled_from([b"{}", b'{"a":1}', b"", b" ", b"{", b"{}{}", b"\r", b"7", b"{}\r"]), max_size=12
)
CUTS = st.lists(st.integers(0, 60), max_size=8)


def pieces(data, cuts):
    at = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(at) if a < b]


@given(TEXTS, st.booleans(), CUTS)
def test_lines_are_numbered_however_chunks_are_cut(texts, ends, cuts):
    data = b"\n".join(texts) + (b"\n" if ends else b"")
    wanted = [(number, line) for number, line in enumerate(data.split(b"\n"), 1) if line.strip()]
    assert list(Numbered(iter(pieces(data, cuts)))) == wanted
    found = Numbered(iter(pieces(data, cuts)))
    decoded = [(found.number, found.line, record) for record in found.decoded(msgspec.json.Decoder(dict))]
    assert found.finished
    if b"{}{}" not in texts:  # two in a line may be taken for two lines
        assert [one[:2] for one in decoded] == wanted
        assert [isinstance(one[2], dict) for one in decoded] == [
            line[:2] in (b"{}", b'{"') for _, line in wanted
        ]


@given(TEXTS, st.integers(1, 9), st.booleans())
def test_ranges_share_a_file_without_losing_a_line(tmp_path_factory, texts, size, ends):
    data = b"\n".join(texts) + (b"\n" if ends else b"")
    path = tmp_path_factory.mktemp("ranges") / "file"
    path.write_bytes(data)
    found, before = [], 0
    for start in range(0, len(data), size):
        source = Source(str(path), start, start + size if start + size < len(data) else None)
        lines = Numbered(source.chunks())
        found += [(before + number, line) for number, line in lines]
        before += lines.number
        source.close()
    assert found == list(Numbered(iter([data])))


COUNT = st.none() | st.integers(-3, 2**40)
TWINS = dict.fromkeys(("cacheReadInputTokenCount", "cacheWriteInputTokenCount"), COUNT)
SPLIT = dict.fromkeys(("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"), COUNT)
DETAIL = st.fixed_dictionaries({"ttl": st.sampled_from(["5m", "1h", "2h"])}, optional={"inputTokens": COUNT})
BLOCKS = st.one_of(
    st.fixed_dictionaries(
        {"input_tokens": COUNT},
        optional={
            **dict.fromkeys(
                ("output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"), COUNT
            ),
            "cache_creation": st.none() | st.fixed_dictionaries({}, optional=SPLIT),
        },
    ),
    st.fixed_dictionaries(
        {"outputTokens": COUNT},
        optional={
            **dict.fromkeys(("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens"), COUNT),
            **TWINS,
            "cacheDetails": st.lists(DETAIL),
        },
    ),
    st.fixed_dictionaries({"inputTokenCount": COUNT, "outputTokenCount": COUNT}, optional=TWINS),
)


@given(BLOCKS)
def test_blocks_count_as_read_usage_does(block):
    try:
        read = read_usage(block)
        wanted = tuple(read.parts[0].tokens), "ttl" in read.assumed
    except Rejected:
        wanted = None
    try:
        typed = msgspec.convert(block, Block)
    except msgspec.ValidationError:
        assert wanted is None
    else:
        assert not says_something(typed) or counts(typed) == wanted


SEARCH = Entry("web_search:msg_1", 1, "web_search", 3, Facts("s"))
FIVE = st.tuples(*[st.integers(0, 2**35)] * 5)


@given(st.lists(st.builds(
    Usage,
    st.integers(0, 2**52),
    st.text(max_size=3),
    st.text(max_size=3),
    st.lists(st.tuples(st.builds(Facts, st.text(max_size=2)), FIVE), min_size=1).map(tuple),
    st.lists(st.tuples(st.text(max_size=2), st.text(max_size=2)), max_size=2).map(tuple),
    st.none() | st.integers(0, 2**40),
    st.booleans(),
    st.text(max_size=3),
    st.lists(st.text(max_size=3), max_size=2).map(tuple),
), max_size=6))  # fmt: skip
def test_frames_cross_the_pipe_unchanged(usages):
    ends = [_task.End(1, "f", 9, 8, 7, (Reject(3, "x"),), "no", "")]
    frame = _task.Frame(usages, 1, 2, 3, 4, ends, [Total("s", 1, 2, "input", 3)], [SEARCH], 5)
    assert unpack_frame(pack_frame(frame)) == frame


@pytest.mark.parametrize(
    ("metadata", "tags"),
    [
        ({"b": "2", "a": "1"}, (("a", "1"), ("b", "2"))),
        ({"b": 2, "a": "1", "c": None}, (("a", "1"), ("b", "2"), ("c", "null"))),
        ({"b": {"x": [1]}}, (("b", '{"x":[1]}'),)),
        ({}, ()),
    ],
)
def test_tags_are_texts_in_order_whatever_they_were(metadata, tags):
    record = json.loads(LOG.splitlines()[0]) | {"requestMetadata": metadata}
    (usage,) = bedrock_log.read([(1, json.dumps(record).encode())])
    assert isinstance(usage, Usage)
    assert usage.tags == tags


PRICED = Facts(
    "bedrock_log", "bedrock", "eu.anthropic.claude-sonnet-4-6", region="eu-west-1", account="1" * 12
)
DIRECT = Facts("claude_code", "anthropic", "claude-haiku-4-5")
UNLIKE = {
    "platform": "elsewhere",
    "model_id": "anthropic.claude-of-nobody",
    "served_model": "claude-of-nobody",
    "region": "us-gov-west-1",
    "mode": "batch",
    "inference_geo": "us",
    "operation": "CountTokens",
    "session": "s",
}


def test_what_lacks_a_price_is_found_whatever_came_before_it():
    first = [
        facts._replace(**{name: said})
        for facts in (PRICED, DIRECT)
        for name, said in [("source", "x"), *UNLIKE.items()]
    ]
    kinds = [*first, *(facts._replace(mode="fast") for facts in first)]
    usages = [
        Usage(at_us, "", "", ((facts, tokens),))
        for facts in kinds
        for at_us in (1_700_000_000_000_000, 1_780_000_000_000_000)
        for tokens in ((1, 1, 0, 0, 0), (1, 1, 1, 0, 0))
    ]
    alone = [_Prices({}).lacking([usage]) for usage in usages]
    prices = _Prices({})
    assert [prices.lacking([usage]) for usage in usages + usages[::-1]] == alone + alone[::-1]
    assert _Prices({}).lacking(usages) == sum(alone)
    assert {1, 0} == set(alone)


LINES = LOG.splitlines() + TRANSCRIPT.splitlines()
MUTATED = st.tuples(
    st.sampled_from(LINES), st.integers(0, 2000), st.integers(0, 40), st.binary(max_size=12)
).map(lambda t: t[0][: t[1]] + t[3] + t[0][t[1] + t[2] :])


@given(st.lists(MUTATED | st.binary(max_size=80), max_size=9), st.sampled_from([bedrock_log, claude_code]))
def test_no_line_can_stop_a_format(lines, form):
    gather = _task._Gather(2**62)
    data = b"\n".join(lines)
    gather.begin(Numbered(iter([data])))
    yields = list(form.read(Numbered(iter([data])), "x"))
    list(gather.all(form, "x"))
    frame = gather.frame()
    assert (
        frame.read == len(yields) == len(frame.usages) + frame.superseded + frame.duplicates + frame.rejected
    )
    assert list(form.read(enumerate(data.split(b"\n"), 1), "x")) == yields or b"}{" in data
    assert _task.recognise(data) in ("", *formats())


@given(st.binary(max_size=300) | st.text().map(str.encode))
def test_whole_only_mends_halves_of_pairs(data):
    assert whole(data) == data or b"\\u" in data
    assert all(isinstance(keys, dict) for keys in objects(data))


VALUES = (
    st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3)) | st.just({"id": "}"})
)
NAMES = st.sampled_from(["id", "usage", "a b", "{", "é"])


@given(st.dictionaries(NAMES, VALUES), st.sampled_from([None, 2, "\t"]))
def test_the_first_keys_are_the_same_however_they_are_found(record, indent):
    """An object that ends in its line is decoded; any other is gone through as far as it goes."""
    text = json.dumps(record, indent=indent, ensure_ascii=False).encode()
    assert first_keys(text + b'\n{"next": 1}') == keys_at(text, 0)
    assert first_keys(text).keys() == record.keys()


def test_whole_keeps_pairs():
    text = rb'"\ud83d\ude00 \ud83d \ude00 \\ud83d"'
    assert json.loads(whole(text)) == "\U0001f600 \ufffd \ufffd \\ufffd"


@pytest.mark.parametrize("text", [None, 5, "", "soon", "2026-02-30T00:00:00Z"])
def test_no_time(text):
    with pytest.raises(Rejected, match="time"):
        instant(text)
