"""Anybody's completions against the verifiers: a stream of JSON lines in, a verdict a line out, in the same order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, get_args

from r1kit.chat import parse
from r1kit.rewards import Verdict, VerifierPool, format_reward, language_share, repetition_share
from r1kit.rows import Language, Problem, Verifier

KINDS = tuple(kind for kind in get_args(Verifier) if kind != "none")
MAX_LINE_BYTES = 16 << 20
_BATCH_ROWS = 256
_SHOWN_CHARACTERS = 60
_WITH_TESTS = ("code", "debug")


@dataclass(frozen=True)
class Scored:
    """One line of the file, and what became of it."""

    row: int
    """From 1."""
    id: str
    """As the file has it; empty where it has none."""
    kind: str
    verdict: Verdict
    format: float
    """1 for one chain and one answer, in their tags."""
    language: float
    """Share of the chain, or of the whole text where there is none, in the row's language."""
    repetition: float
    """Share of the text that says again what was said before."""

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        about = {"row": self.row} | ({"id": self.id} if self.id else {}) | {"kind": self.kind}
        verdict = {"score": self.verdict.score, "reason": self.verdict.reason}
        form = {"format": self.format, "language": round(self.language, 4), "repetition": round(self.repetition, 4)}
        return {**about, **verdict, "seconds": round(self.verdict.seconds, 6), **form}


@dataclass(frozen=True)
class BadLine:
    """A line that cannot be scored."""

    row: int
    """From 1."""
    sentence: str
    """File, row, field, value, way out."""

    def to_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {"row": self.row, "error": self.sentence}


class _Fault(Exception):
    """What is wrong with a line."""


@dataclass(frozen=True)
class _Line:
    row: int
    id: str
    problem: Problem
    completion: str
    opens_think: bool


def limited(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream; of one that is too long only so much that it shows."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
        yield line


def score(lines: Iterable[bytes], name: str, pool: VerifierPool) -> Iterator[Scored | BadLine]:
    """Verdicts on JSON lines, in their order; blank lines are skipped.

    A few hundred lines are held at a time, however long the file is.

    Args:
        lines: each a JSON object with `kind`, `completion`, and `answer` or `tests` as the kind needs.
        name: what sentences about bad lines call the file.
    """
    read = (_read(line, row, name) for row, line in enumerate(lines, 1) if line.strip())
    while batch := list(islice(read, _BATCH_ROWS)):
        verdicts: dict[int, Verdict] = {}
        for opened in (False, True):
            good = [item for item in batch if isinstance(item, _Line) and item.opens_think == opened]
            found = pool.verify([item.problem for item in good], [item.completion for item in good], opened)
            verdicts |= {item.row: verdict for item, verdict in zip(good, found, strict=True)}
        for item in batch:
            yield item if isinstance(item, BadLine) else _scored(item, verdicts[item.row])


def _scored(line: _Line, verdict: Verdict) -> Scored:
    think = parse(line.completion, line.opens_think).think
    text = line.completion if think is None else think
    return Scored(
        line.row,
        line.id,
        line.problem.verifier,
        verdict,
        format_reward(line.completion, line.opens_think),
        language_share(text, line.problem.language),
        repetition_share(text),
    )


def _read(line: bytes, row: int, name: str) -> _Line | BadLine:
    try:
        return _parsed(line, row)
    except _Fault as fault:
        return BadLine(row, f"{name}, row {row}, {fault}")


def _parsed(line: bytes, row: int) -> _Line:
    values = _object(line)
    kind = _choice(values, "kind", KINDS)
    meta: dict[str, Any] = {}
    answer = tests = ""
    if kind in _WITH_TESTS:
        tests = _tests(values)
        meta["entry_point"] = _text(values, "entry_point", default="")
    else:
        answer = _answer(values)
    if kind == "gym":
        meta |= {"dataset": _text(values, "dataset"), "entry": _entry(values)}
    problem = Problem(
        id=f"row {row}",
        source="file",
        licence="",
        prompt=_text(values, "prompt", default=""),
        verifier=kind,  # pyright: ignore[reportArgumentType]  (one of KINDS)
        answer=answer,
        tests=tests,
        language=_choice(values, "language", get_args(Language), default="en"),  # pyright: ignore[reportArgumentType]
        meta=json.dumps(meta),
    )
    opens_think = values.get("opens_think", False)
    if not isinstance(opens_think, bool):
        raise _Fault(f"field opens_think: {_shown(opens_think)} is neither true nor false; leave it out for false")
    completion = _text(values, "completion", empty=True)
    return _Line(row, _id(values), problem, completion, opens_think)


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE_BYTES:
        raise _Fault(
            f"the line {_shown(line[:99].decode(errors='replace'))} is longer than {MAX_LINE_BYTES >> 20} MiB; cut it"
        )
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        said = str(error) if isinstance(error, json.JSONDecodeError) else type(error).__name__
        text = _shown(line.decode(errors="replace").strip())
        raise _Fault(f"the line {text} is not JSON ({said}); write one JSON object a line") from None
    if not isinstance(values, dict):
        raise _Fault(f"the line {_shown(values)} is not a JSON object; write one JSON object a line")
    return values


def _text(values: dict[str, Any], field: str, default: str | None = None, empty: bool = False) -> str:
    if field not in values or (values[field] is None and default is not None):
        if default is not None:
            return default
        raise _Fault(f"field {field}: it is missing; add it as text")
    value = values[field]
    if not isinstance(value, str):
        raise _Fault(f"field {field}: {_shown(value)} is not text; write it in quotation marks")
    if default is None and not empty and not value.strip():
        raise _Fault(f"field {field}: {_shown(value)} is blank; fill it in")
    return value


def _answer(values: dict[str, Any]) -> str:
    value = values.get("answer")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return _text(values, "answer")


def _tests(values: dict[str, Any]) -> str:
    value = values.get("tests")
    if isinstance(value, list) and value and all(isinstance(test, str) for test in value):
        value = "\n".join(value)
    return _text({"tests": value} if "tests" in values else {}, "tests")


def _entry(values: dict[str, Any]) -> dict[str, Any]:
    value = values.get("entry")
    if not isinstance(value, dict):
        raise _Fault(f"field entry: {_shown(value)} is not an object; give the item that reasoning-gym made")
    return value


def _choice(values: dict[str, Any], field: str, allowed: tuple[str, ...], default: str | None = None) -> str:
    value = _text(values, field, default)
    if value not in allowed:
        raise _Fault(f"field {field}: {_shown(value)} is unknown; choose one of {', '.join(allowed)}")
    return value


def _id(values: dict[str, Any]) -> str:
    value = values.get("id")
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
