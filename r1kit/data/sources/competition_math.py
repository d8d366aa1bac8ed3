"""MATH: competition problems (Hendrycks et al., arXiv 2103.03874), with MATH-500 held out (arXiv 2305.20050)."""

from r1kit.chat import last_boxed, response
from r1kit.data.records import BadField, Context, Record, json_list
from r1kit.data.source import Source, github
from r1kit.rows import Problem, SftRow

_MATH500 = github(
    "math/math500.jsonl",
    "hkust-nlp/simpleRL-reason",
    "cf1c7858bfc145a27aa733e75d930d34f0d318a6",
    "examples/simplelr_math_eval/data/math500/test.jsonl",
    "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
)
_TEST5000 = github(
    "math/math_test5000.jsonl",
    "deepseek-ai/DeepSeek-Coder",
    "2f9fd85927c669dae3c0fbb2d607274023af243e",
    "Evaluation/PAL-Math/datasets/math/test.json",
    "3371949f33dd702d04b43fddd7d53a028de0aaca0e76abb1b875a050297b3aa4",
)
_TRAIN = github(
    "math/math_train7474_answers.json",
    "agentica-project/deepscaler",
    "95ef74ffee001cce89463f2d61dfdce1d03576c1",
    "deepscaler/data/train/math.json",
    "569230b362fd501e1a33d8f29aae3b4b989d32e2b91b07c3f48493528c3bf6d2",
)


def _boxed(record: Record) -> str:
    """The answer that the solution boxes; its last box where there are several, as the data set's own scorer does."""
    solution = record.text("solution")
    answer = last_boxed(solution)
    if answer is None or not answer.strip():
        raise BadField("solution", solution, "solution boxes no answer")
    return answer.strip()


def _solved(record: Record, context: Context) -> Problem:
    return Problem(
        **context.common(record.number),
        prompt=record.text("problem").strip(),
        verifier="math",
        answer=_boxed(record),
        solution=record.text("solution").strip(),
    )


def _chain(record: Record, context: Context) -> SftRow:
    return SftRow(
        **context.common(record.number),
        prompt=record.text("problem").strip(),
        response=response(record.text("solution"), _boxed(record)),
        kind="chain",
    )


def _answered(record: Record, context: Context) -> Problem:
    return Problem(
        **context.common(record.number),
        prompt=record.text("problem").strip(),
        verifier="math",
        answer=record.text("answer").strip(),
    )


def _benchmark(record: Record, context: Context) -> Problem:
    return Problem(
        **context.common(record.text("unique_id")),
        prompt=record.text("problem").strip(),
        verifier="math",
        answer=record.text("answer").strip(),
        solution=record.text("solution").strip(),
        benchmark=context.held_out(),
    )


MATH500 = Source(
    name="math500",
    licence="MIT (repo)",
    files=(_MATH500,),
    makers={"benchmarks": _benchmark},
)
MATH_TEST = Source(
    name="math_test",
    licence="MIT (repo LICENSE-CODE)",
    files=(_TEST5000,),
    held_out=(_MATH500,),
    makers={"problems": _solved, "chains": _chain},
    note="the origin's test split less MATH-500, the usual training set of those who report MATH-500",
)
MATH_TRAIN = Source(
    name="math_train",
    licence="MIT (repo)",
    files=(_TRAIN,),
    reader=json_list,
    makers={"problems": _answered},
    note="final answers alone, no solutions",
)
