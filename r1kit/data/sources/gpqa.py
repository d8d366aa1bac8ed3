"""GPQA diamond: graduate questions in biology, physics and chemistry, four options each (arXiv 2311.12022)."""

import hashlib

from r1kit.data.records import BadField, Context, Record, csv_rows
from r1kit.data.source import Source, hub
from r1kit.rows import Problem

_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_LETTERS = "ABCD"


def _benchmark(record: Record, context: Context) -> Problem:
    name = record.text("Record ID").strip()
    right = record.text("Correct Answer").strip()
    options = [right, *(record.text(field).strip() for field in _WRONG)]
    if len(set(options)) < len(options):
        raise BadField("Correct Answer", right, "two of the four options are the same")
    # The right one comes first in the file: each row has an order of its own, the same on every machine.
    options.sort(key=lambda option: hashlib.sha256(f"{name}\x1f{option}".encode()).digest())
    listed = "\n".join(f"({letter}) {option}" for letter, option in zip(_LETTERS, options, strict=True))
    return Problem(
        **context.common(name),
        prompt=f"{record.text('Question').strip()}\n\n{listed}\n\nAnswer with the letter of the right option.",
        verifier="choice",
        answer=_LETTERS[options.index(right)],
        solution=record.text("Explanation", empty=True).strip(),
        benchmark=context.held_out(),
    )


GPQA_DIAMOND = Source(
    name="gpqa_diamond",
    licence="CC-BY-4.0",
    files=(hub("logic/gpqa_diamond.csv", "Idavidrein/gpqa", "gpqa_diamond.csv"),),
    reader=csv_rows,
    makers={"benchmarks": _benchmark},
    note="its authors ask that no question is published in plain text: keep mirrors to yourself",
)
