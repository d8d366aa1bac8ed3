"""CMATH: Chinese elementary-school word problems (Wei et al., arXiv 2306.16636)."""

from r1kit.data.records import Context, Record
from r1kit.data.source import Source, github
from r1kit.rows import Problem


def _problem(record: Record, context: Context) -> Problem | None:
    # The origin has a test split only. One part of it, by prompt, is the benchmark; the other is for training.
    prompt = record.text("question").strip()
    if (context.split(prompt) == "heldout") != (context.kind == "benchmarks"):
        return None
    return Problem(
        **context.common(record.number),
        language="zh",
        prompt=prompt,
        verifier="math",
        answer=record.text("golden").strip(),
        benchmark=context.held_out(),
    )


CMATH = Source(
    name="cmath",
    licence="MIT (repo LICENSE-CODE); dataset own licence not in repo",
    files=(
        github(
            "math/cmath_zh.jsonl",
            "deepseek-ai/DeepSeek-Math",
            "b8b0f8ce093d80bf8e9a641e44142f06d092c305",
            "evaluation/datasets/cmath/test.jsonl",
            "cabe17c127c3227912b3384f4755e180f3aa0d9e5865677e7e5e223439bf15eb",
        ),
    ),
    makers={"problems": _problem, "benchmarks": _problem},
    options={"heldout_share": (0.5, 0.0, 1.0)},
    note="divided by prompt into benchmark and problems: give both the same heldout_share",
)
