"""Events that are skipped unread change nothing of what is metered, however a stream is cut into pieces."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.gateway._skim import Events, Frames, skimmed
from farthing.wire import Answer, Answers, Route
from tests.hooked import FRAMES, MODEL, SSE, converse_frames, frame, invoke_frames, sse_events

STREAMS = {
    "InvokeModelWithResponseStream": (FRAMES, invoke_frames(12)),
    "ConverseStream": (FRAMES, converse_frames(12)),
    "Messages": (SSE, sse_events(12)),
}
ERROR = frame("throttlingException", {"message": "slow"}, "exception")


def reading(operation: str, kind: str) -> Answers:
    return Answers(Route(operation, "bedrock", MODEL, streamed=True), 200, {"content-type": kind})


def read(operation: str, kind: str, chunks: list[bytes], *, skim: bool) -> Answer:
    answers = reading(operation, kind)
    reader = skimmed(operation, answers)
    for chunk in chunks:
        if not skim:
            answers.feed(chunk)
        elif not reader.skips(chunk):
            reader.feed(chunk)
    return answers.done()


class Along:
    """Reads as hooks do, while the caller reads."""

    def __init__(self, operation: str, kind: str) -> None:
        self.answers = reading(operation, kind)
        self.reader = skimmed(operation, self.answers)
        self.ended = 0

    def feed(self, chunk: bytes) -> None:
        assert isinstance(self.reader, Events) or not self.reader.skips(chunk)
        self.reader.feed(chunk)

    def end(self) -> None:
        self.ended += 1


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks: list[bytes] = []
    at = 0
    while at < len(data):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(data[at : at + size])
        at += size
    return chunks


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(STREAMS)),
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
    st.integers(0, 20),
    st.booleans(),
)
def test_the_answer_is_the_same(operation, sizes, end, fails):
    """Whole streams, streams that end early, and streams that end with an error."""
    kind, events = STREAMS[operation]
    events = [*events[: end + 1], ERROR] if fails and kind == FRAMES else events[: end + 1]
    for chunks in (events, cut(b"".join(events), sizes)):
        plain = read(operation, kind, events, skim=False)
        assert read(operation, kind, chunks, skim=True) == plain
        along = Along(operation, kind)
        assert list(along.reader.along(iter(chunks), along)) == chunks
        assert (along.answers.done(), along.ended) == (plain, 1)


@pytest.mark.parametrize("operation", STREAMS)
def test_most_of_it_is_skipped(operation):
    kind, events = STREAMS[operation]
    answers = Answers(Route(operation, "bedrock", MODEL, streamed=True), 200, {"content-type": kind})
    fed: list[bytes] = []
    setattr(answers, "feed", fed.append)  # noqa: B010 - in its place
    reader = skimmed(operation, answers)
    glances = 0
    for event in events:
        if reader.skips(event):
            glances += 1
        else:
            reader.feed(event)
    assert glances >= 11  # once its place is known
    first = 1 if operation == "ConverseStream" else 2
    assert b"".join(fed) == b"".join(events[:first] + events[first + 12 :])


@given(st.binary(min_size=1, max_size=300), st.integers(0, 12))
def test_what_is_no_frame_is_passed_on_to_who_can_say_so(junk, at):
    fed: list[bytes] = []
    whole = Frames(b"nothing has this", fed.append)
    events = converse_frames(12)
    data = b"".join(events[:at]) + b"\xff" + junk + b"".join(events[at:])
    for chunk in cut(data, [100]):
        whole.feed(chunk)
    assert b"".join(fed) == data


@pytest.mark.parametrize("length", [0, 15, 2**31])
def test_a_length_that_cannot_be_does_not_fill_the_memory(length):
    whole = Frames(b"x", lambda _: None)
    whole.feed(length.to_bytes(4, "big") + b"\0" * 100)
    for _ in range(50):
        whole.feed(b"\0" * 1000)
    assert whole._rest == b""
