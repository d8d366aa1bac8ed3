"""BIG-Bench Hard: tasks that language models found hard (Suzgun et al., arXiv 2210.09261), one benchmark each."""

from functools import partial

from r1kit.data.records import Context, Record, json_list
from r1kit.data.source import Source, github
from r1kit.rows import Problem, Verifier

_TASKS: dict[str, tuple[Verifier, str, str]] = {
    "boolean_expressions": (
        "choice",
        "Evaluate this expression. Answer True or False.",
        "ea6c754ec005e2d3f2d085d349a740f593b5764f32ea4638ffed4cfc0061b12a",
    ),
    "date_understanding": (
        "choice",
        "Answer with the letter of the right option.",
        "0148d4ac5fca05b2f82373e5fef7208e15363b9c6079493034d77b3dab496bf5",
    ),
    "logical_deduction_three_objects": (
        "choice",
        "Answer with the letter of the right option.",
        "e590fae72e3a6041fbd23bd8ff6b74baf44ca563f6ba40a041c55e7b867c1681",
    ),
    "multistep_arithmetic_two": (
        "math",
        "Work this out. Answer with a number.",
        "c9d5a6433c9b78256422a15c78463949c8bec8d85607aa28b52d7234ad4a8595",
    ),
    "object_counting": (
        "math",
        "Answer with a number.",
        "8acef14dbbdd40d2326ef7755750b6b5fe919fef06276af1bab3f1c297f022ff",
    ),
    "web_of_lies": (
        "choice",
        "Answer Yes or No.",
        "3e60323f8514a107fdb4edf35f8832a9171c5a09c0eaa47823559de905e8ab8b",
    ),
    # Not an option but a fixed label all the same: the right words in the right order.
    "word_sorting": (
        "choice",
        "Answer with the sorted words, separated by spaces.",
        "2a6132d2c99f00d0d2eb1113ac6b4a918bd969d863c48749210d969713db8d43",
    ),
}


def _benchmark(verifier: Verifier, hint: str, record: Record, context: Context) -> Problem:
    return Problem(
        **context.common(record.number),
        prompt=f"{record.text('input').strip()}\n{hint}",
        verifier=verifier,
        answer=record.text("target").strip(),
        benchmark=context.held_out(),
    )


def _task(name: str) -> Source:
    verifier, hint, sha256 = _TASKS[name]
    return Source(
        name=f"bbh_{name}",
        licence="MIT",
        files=(
            github(
                f"logic/bbh/{name}.json",
                "suzgunmirac/BIG-Bench-Hard",
                "9ee07bd481feebf959a6b59d61ea57bdcf30964d",
                f"bbh/{name}.json",
                sha256,
            ),
        ),
        reader=partial(json_list, key="examples"),
        makers={"benchmarks": partial(_benchmark, verifier, hint)},
        note="never to be trained on, says its canary",
    )


BBH = tuple(_task(name) for name in _TASKS)
"""Benchmarks alone: the files ask not to be trained on."""
