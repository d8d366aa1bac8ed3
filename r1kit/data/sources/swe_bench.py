"""SWE-bench Verified: real issues of Python projects, with the patches that closed them (arXiv 2310.06770)."""

from r1kit.data.records import HELD_OUT_ONLY, Context, Record, parquet
from r1kit.data.source import Source, hub
from r1kit.rows import Problem


def _benchmark(record: Record, context: Context) -> Problem:
    return Problem(
        **context.common(record.text("instance_id").strip()),
        prompt=record.text("problem_statement").strip(),
        verifier="none",
        solution=record.text("patch"),
        benchmark=context.held_out(),
        meta=HELD_OUT_ONLY,
    )


SWE_BENCH_VERIFIED = Source(
    name="swe_bench_verified",
    licence="the projects' own; see each repository",
    files=(
        hub("code/swe_bench_verified.parquet", "princeton-nlp/SWE-bench_Verified", "data/test-00000-of-00001.parquet"),
    ),
    reader=parquet,
    makers={"benchmarks": _benchmark},
    note="for decontamination: its verdicts need a container a project, which r1kit has not",
)
