"""MBPP: mostly basic Python problems, with tests (Austin et al., arXiv 2108.07732)."""

from r1kit.data.records import BadField, Context, Record
from r1kit.data.source import Source, github
from r1kit.rows import Problem

_TEST_SPLIT = range(11, 511)
"""Task ids of the authors' test split; 1-10 are few-shot examples, 511-600 validation, 601-974 training."""
_SLOW = (123,)
"""Its reference solution runs for about five seconds, so whether it meets a deadline is the machine's mood."""


def task(record: Record, context: Context) -> Problem | None:
    """A task as a problem; None where it belongs to the other split."""
    number = record.get("task_id")
    if not isinstance(number, int):
        raise BadField("task_id", number, "task_id is not a whole number")
    # Few-shot examples and validation tasks train too: nothing here needs them for anything else.
    if (number in _TEST_SPLIT) != (context.kind == "benchmarks"):
        return None
    if number in _SLOW:
        raise BadField("task_id", number, "the reference solution runs for seconds, near the verifier's deadline")
    tests = [test for test in record.items("test_list") if isinstance(test, str) and test.strip()]
    if not tests:
        raise BadField("test_list", record.get("test_list"), "test_list holds no tests")
    setup = record.text("test_setup_code", empty=True)
    if setup.strip():
        raise BadField("test_setup_code", setup, "the tests need names that only the reference solution defines")
    # The tests belong to the question: nothing else says what the function is to be called.
    shown = "\n".join(test.strip() for test in tests)
    return Problem(
        **context.common(number),
        prompt=f"{record.text('text').strip()}\n\nTests:\n```python\n{shown}\n```",
        verifier="code",
        tests=shown,
        solution=record.text("code").replace("\r\n", "\n"),
        benchmark=context.held_out(),
    )


MBPP = Source(
    name="mbpp",
    licence="MIT (repo LICENSE-CODE)",
    files=(
        github(
            "code/mbpp.jsonl",
            "deepseek-ai/DeepSeek-Coder",
            "2f9fd85927c669dae3c0fbb2d607274023af243e",
            "Evaluation/MBPP/data/mbpp.jsonl",
            "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
        ),
    ),
    makers={"problems": task, "benchmarks": task},
    note="a copy of google-research's mbpp, whose own licence was not checked",
)
