"""Both models asked the same questions through Bedrock's Converse, graded, until the evidence suffices.

What is kept of a question is its id, the two scores and the token counts: no text. A run that is broken off goes on
where it stopped, since each outcome is a line of its own, written before the next question is asked.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from farthing.book import Book
from farthing.evaluate._outcomes import OutcomeError
from farthing.rating import rate

GRADES = ("exact", "contains", "regex", "number", "json")


class Question(NamedTuple):
    """One question: what is sent, and what a right answer is known by."""

    id: str
    messages: list[dict[str, Any]]
    system: str = ""
    expected: str = ""
    cluster: str = ""


class Answer(NamedTuple):
    """`picos` is None where the book has no price."""

    text: str
    usage: dict[str, Any]
    picos: int | None


Ask = Callable[[str, Question], Answer]
Grade = Callable[[Question, str], float]


def read_questions(path: Path | str) -> list[Question]:
    """JSON lines with `prompt` or `messages`, and `id`, `system`, `expected`, `cluster` where there are such."""
    found: list[Question] = []
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OutcomeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            found.append(_question(line, f"{path}:{number}", number))
    if twice := [name for name, count in Counter(question.id for question in found).items() if count > 1]:
        raise OutcomeError(f"{path}: the id {twice[0]!r} is there twice: outcomes are kept by it")
    if not found:
        raise OutcomeError(f"{path}: no questions in it: write a line each, with `prompt` or `messages`")
    return found


def _question(line: str, place: str, number: int) -> Question:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise OutcomeError(f"{place}: not JSON: {error}") from error
    messages = row.get("messages") if isinstance(row, dict) else None
    if messages is None and isinstance(row, dict) and isinstance(row.get("prompt"), str):
        messages = [{"role": "user", "content": row["prompt"]}]
    if not isinstance(messages, list) or not messages:
        raise OutcomeError(f"{place}: neither `prompt` (a text) nor `messages` (a list)")
    said = [
        {"role": one.get("role", "user"), "content": _blocks(one.get("content"), place)}
        for one in messages
        if isinstance(one, dict)
    ]
    expected = row.get("expected", "")
    return Question(
        str(row.get("id") or f"line {number}"),
        said,
        str(row.get("system") or ""),
        expected if isinstance(expected, str) else json.dumps(expected),
        str(row.get("cluster") or ""),
    )


def _blocks(content: Any, place: str) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    if isinstance(content, list) and all(isinstance(block, dict) for block in content):
        # of Messages, {"type": "text", "text": ...}; of Converse, {"text": ...}
        return [{"text": block["text"]} if block.get("type") == "text" else block for block in content]
    raise OutcomeError(f"{place}: `content` is neither text nor a list of blocks")


# --- asking ---------------------------------------------------------------------------------------------------------


def converse(client: Any, book: Book, region: str, now: Callable[[], datetime], max_tokens: int) -> Ask:
    """Questions to a boto3 bedrock-runtime client, each answer with its price."""

    def ask(model: str, question: Question) -> Answer:
        system = {"system": [{"text": question.system}]} if question.system else {}
        answer = client.converse(
            modelId=model,
            messages=question.messages,
            inferenceConfig={"maxTokens": max_tokens},
            **system,
        )
        blocks = answer["output"]["message"]["content"]
        text = "".join(block.get("text", "") for block in blocks)
        usage = answer.get("usage") or {}
        return Answer(text, usage, rate(model, now(), usage, region=region, book=book).cost)

    return ask


# --- grading --------------------------------------------------------------------------------------------------------


def grader(how: str, command: Sequence[str] = ()) -> Grade:
    """A grade from 0 to 1: by what is expected, or by a command that reads JSON and prints the score."""
    if command:
        return lambda question, text: _by_command(command, question, text)
    return lambda question, text: float(_fits(how, question.expected, text))


def _fits(how: str, expected: str, text: str) -> bool:
    if how == "exact":
        return text.strip() == expected.strip()
    if how == "contains":
        return expected.strip().casefold() in text.casefold()
    if how == "regex":
        return re.search(expected, text) is not None
    if how == "number":
        numbers = re.findall(r"-?\d[\d,]*\.?\d*", text)
        return bool(numbers) and numbers[-1].replace(",", "").rstrip(".") == expected.strip().replace(",", "")
    try:
        return bool(json.loads(text) == json.loads(expected))
    except ValueError:
        return False


def _by_command(command: Sequence[str], question: Question, text: str) -> float:
    told = {"id": question.id, "messages": question.messages, "expected": question.expected, "answer": text}
    done = subprocess.run(  # noqa: S603 - the command that the user named
        list(command), input=json.dumps(told), capture_output=True, text=True, check=False
    )
    try:
        score = float(done.stdout.strip() or "nothing")
    except ValueError as error:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["nothing"]
        raise OutcomeError(
            f"{command[0]}: wanted a score from 0 to 1, and it said: {said[0][:120]}"
        ) from error
    if done.returncode or not 0 <= score <= 1:
        raise OutcomeError(
            f"{command[0]}: gave {score} with exit code {done.returncode}; wanted 0 to 1, and 0"
        )
    return score


def run(
    questions: Sequence[Question],
    models: tuple[str, str],
    ask: Ask,
    grade: Grade,
    out: Path,
    most_picos: int | None,
) -> Iterator[dict[str, Any]]:
    """Outcomes, one a question, each in `out` before it is yielded. Those in it already come first, and are not asked.

    Stops before a question that would take what was spent beyond `most_picos`, as far as the dearest so far tells.
    """
    known = _known(out)
    spent = sum(row.get("picos") or 0 for row in known.values())
    dearest = max((row.get("picos") or 0 for row in known.values()), default=0)
    yield from known.values()
    with out.open("a", encoding="utf-8") as file:
        for question in questions:
            if question.id in known:
                continue
            if most_picos is not None and spent + dearest > most_picos:
                return
            row = _outcome(question, models, ask, grade)
            spent += row["picos"] or 0
            dearest = max(dearest, row["picos"] or 0)
            file.write(json.dumps(row) + "\n")
            file.flush()
            yield row


def _outcome(question: Question, models: tuple[str, str], ask: Ask, grade: Grade) -> dict[str, Any]:
    answers = [ask(model, question) for model in models]
    scores = [grade(question, answer.text) for answer in answers]
    picos = [answer.picos for answer in answers]
    row: dict[str, Any] = {"id": question.id, "from": scores[0], "to": scores[1]}
    if question.cluster:
        row["cluster"] = question.cluster
    return row | {
        "from_usage": answers[0].usage,
        "to_usage": answers[1].usage,
        "from_picos": picos[0],
        "to_picos": picos[1],
        "picos": None if None in picos else sum(picos),  # type: ignore[arg-type]
    }


def _known(out: Path) -> dict[str, dict[str, Any]]:
    if not out.exists():
        return {}
    rows = []
    text = out.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):  # broken off while it was written: that question is asked again
            out.write_text(text[: -len(line)], encoding="utf-8")
            break
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise OutcomeError(f"{out}:{number}: not JSON: name another file, or mend the line") from error
    return {str(row.get("id")): row for row in rows}
