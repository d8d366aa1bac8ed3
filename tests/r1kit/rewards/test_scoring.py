"""Anybody's lines: a verdict or one sentence for each, in order, however long the file is."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest

from r1kit.rewards import VerifierPool
from r1kit.scoring import MAX_LINE_BYTES, BadLine, Scored, limited, score

RIGHT = {"kind": "math", "prompt": "?", "answer": "1/2", "completion": "<think> so </think> <answer> 0.5 </answer>"}
SQUARE = {
    "kind": "code",
    "tests": ["assert f(2) == 4", "assert f(-1) == 1"],
    "completion": "def f(x):\n    return x * x",
}
GOOD: list[tuple[dict[str, Any], float]] = [
    (RIGHT, 1),
    (RIGHT | {"completion": "<think> so </think> <answer> 0.6 </answer>"}, 0),
    (RIGHT | {"answer": 0.5, "completion": "\\boxed{\\frac{1}{2}}"}, 1),
    (RIGHT | {"completion": "so </think> <answer> 0.5 </answer>", "opens_think": True}, 1),
    ({"kind": "choice", "answer": "B", "completion": "(B)"}, 1),
    (SQUARE, 1),
    (SQUARE | {"completion": "def f(x):\n    return x + x"}, 0),
    (SQUARE | {"tests": "def check(candidate):\n    assert candidate(2) == 4", "entry_point": "f"}, 1),
    (SQUARE | {"kind": "debug", "completion": "def f(x):\n    return x * x\nassert f(2) == 4"}, 1),
    (SQUARE | {"kind": "debug", "completion": "def f(x):\n    return x * x\nassert f(2) == 5"}, 0),
    ({"kind": "gym", "answer": "7", "dataset": "chain_sum", "entry": {"answer": "7", "question": "", "metadata": {}},
      "completion": "<answer> 7 </answer>"}, 1),
]  # fmt: skip
BAD: list[tuple[Any, str]] = [
    ("not json", 'the line "not json" is not JSON'),
    ([1], "the line [1] is not a JSON object"),
    ({}, "field kind: it is missing"),
    (RIGHT | {"kind": "maths"}, 'field kind: "maths" is unknown; choose one of math, choice, code'),
    (RIGHT | {"kind": "none"}, 'field kind: "none" is unknown'),
    (RIGHT | {"answer": " "}, 'field answer: " " is blank'),
    (RIGHT | {"answer": True}, "field answer: true is not text"),
    (RIGHT | {"completion": None}, "field completion: null is not text"),
    (RIGHT | {"prompt": 5}, "field prompt: 5 is not text"),
    (RIGHT | {"language": "fr"}, 'field language: "fr" is unknown; choose one of en, zh'),
    (RIGHT | {"opens_think": "yes"}, 'field opens_think: "yes" is neither true nor false'),
    (SQUARE | {"tests": []}, "field tests: [] is not text"),
    (SQUARE | {"tests": [1]}, "field tests: [1] is not text"),
    ({"kind": "gym", "answer": "7", "completion": "7"}, "field dataset: it is missing"),
    ({"kind": "gym", "answer": "7", "dataset": "chain_sum", "completion": "7"}, "field entry: null is not an object"),
]


def line(values: Any) -> bytes:
    return (values if isinstance(values, str) else json.dumps(values)).encode() + b"\n"


def test_every_line_gets_its_verdict_in_order_and_bad_lines_cost_no_others(pool: VerifierPool) -> None:
    lines = [line(values) for pair in zip(BAD, GOOD * 2, strict=False) for values, _ in pair]
    found = list(score(lines, "mine.jsonl", pool))
    assert [item.row for item in found] == list(range(1, len(lines) + 1))
    for item, (_, sentence) in zip(found[::2], BAD, strict=True):
        assert isinstance(item, BadLine)
        assert item.sentence.startswith(f"mine.jsonl, row {item.row}, {sentence}") and "\n" not in item.sentence
    for item, (values, expected) in zip(found[1::2], (GOOD * 2)[: len(BAD)], strict=True):
        assert isinstance(item, Scored)
        assert (item.kind, item.verdict.score) == (values["kind"], expected), item


def test_blank_lines_count_but_say_nothing(pool: VerifierPool) -> None:
    found = list(score([b"\n", line(RIGHT), b"  \n", line(RIGHT)], "mine", pool))
    assert [item.row for item in found] == [2, 4]


def test_a_verdict_tells_of_the_form_too(pool: VerifierPool) -> None:
    chinese = RIGHT | {"completion": "<think> 一半就是零点五 </think> <answer> 0.5 </answer>"}
    item, other = score([line(RIGHT | {"id": 7}), line(chinese | {"language": "zh"})], "mine", pool)
    assert isinstance(item, Scored) and isinstance(other, Scored)
    told = item.to_json()
    assert list(told) == ["row", "id", "kind", "score", "reason", "seconds", "format", "language", "repetition"]
    assert (told["id"], told["format"], told["language"], told["repetition"]) == ("7", 1, 1, 0)
    assert other.language == 1 and "id" not in other.to_json()


def test_a_file_is_read_only_as_far_as_its_verdicts_are_wanted(pool: VerifierPool) -> None:
    num_read = 0

    def endless() -> Iterator[bytes]:
        nonlocal num_read
        while True:
            num_read += 1
            yield line(RIGHT)

    verdicts = score(endless(), "mine", pool)
    for _ in range(1000):
        next(verdicts)
    assert 1000 <= num_read <= 1500


def test_a_line_without_end_is_cut_and_refused(pool: VerifierPool) -> None:
    stream = io.BytesIO(b'{"kind": "' + b"x" * (3 * MAX_LINE_BYTES) + b"\n" + line(RIGHT))
    long, good = score(limited(stream), "mine", pool)
    assert isinstance(long, BadLine) and "longer than 16 MiB; cut it" in long.sentence and len(long.sentence) < 200
    assert isinstance(good, Scored) and good.row == 2


@pytest.mark.parametrize("text", ['{"kind": "\\ud800"}', '{"a":' * 10_000, "\0", "\ufeff{}", "9" * 10_000])
def test_odd_lines_are_one_sentence(pool: VerifierPool, text: str) -> None:
    (item,) = score([line(text)], "mine", pool)
    assert isinstance(item, BadLine) and item.sentence.isprintable()
