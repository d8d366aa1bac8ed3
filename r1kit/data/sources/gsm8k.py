"""GSM8K: grade-school word problems with human solutions (Cobbe et al., arXiv 2110.14168)."""

import re

from r1kit.chat import response
from r1kit.data.records import BadField, Context, Record
from r1kit.data.source import RawFile, Source, github
from r1kit.rows import Problem, SftRow

_CALCULATOR = re.compile(r"<<[^<>]*>>")


def _parts(record: Record) -> tuple[str, str]:
    """The solution, without the calculator's annotations, and the answer, without thousands separators."""
    text = record.text("answer")
    solution, marker, answer = text.rpartition("####")
    if not marker or not solution.strip() or not answer.strip():
        raise BadField("answer", text, "answer has no final value behind ####")
    return _CALCULATOR.sub("", solution).strip(), answer.strip().replace(",", "")


def _problem(record: Record, context: Context) -> Problem:
    solution, answer = _parts(record)
    return Problem(
        **context.common(record.number),
        prompt=record.text("question").strip(),
        verifier="math",
        answer=answer,
        solution=solution,
        benchmark=context.held_out(),
    )


def _chain(record: Record, context: Context) -> SftRow:
    solution, answer = _parts(record)
    return SftRow(
        **context.common(record.number),
        prompt=record.text("question").strip(),
        response=response(solution, answer),
        kind="chain",
    )


def _file(name: str, sha256: str) -> RawFile:
    return github(
        f"math/gsm8k_{name}.jsonl",
        "openai/grade-school-math",
        "3101c7d5072418e28b9008a6636bde82a006892c",
        f"grade_school_math/data/{name}.jsonl",
        sha256,
    )


GSM8K_TRAIN = Source(
    name="gsm8k_train",
    licence="MIT",
    files=(_file("train", "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465"),),
    makers={"problems": _problem, "chains": _chain},
)
GSM8K_TEST = Source(
    name="gsm8k_test",
    licence="MIT",
    files=(_file("test", "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14"),),
    makers={"benchmarks": _problem},
)
