"""AIME: the invitational competition whose answers are whole numbers from 0 to 999."""

from r1kit.data.records import Context, Record, json_list
from r1kit.data.source import RawFile, Source, github
from r1kit.rows import Problem

_NOTE = "the problems are the property of the Mathematical Association of America"


def _name(record: Record) -> str:
    return f"{record.get('year')}-{record.get('aime_number')}-{record.get('problem_number')}"


def _benchmark(record: Record, context: Context) -> Problem:
    return Problem(
        **context.common(_name(record)),
        prompt=record.text("problem").strip(),
        verifier="math",
        answer=record.text("answer").strip(),
        solution=record.text("solution").strip(),
        benchmark=context.held_out(),
    )


def _problem(record: Record, context: Context) -> Problem:
    # Several contributors sign and discuss within the solutions: good for decontamination, no chains to learn.
    return Problem(
        **context.common(record.number),
        prompt=record.text("problem").strip(),
        verifier="math",
        answer=record.text("answer").strip(),
        solution=record.text("solution", empty=True).strip(),
    )


def _file(path: str, origin: str, sha256: str) -> RawFile:
    commit = "95ef74ffee001cce89463f2d61dfdce1d03576c1"
    return github(path, "agentica-project/deepscaler", commit, f"deepscaler/data/{origin}", sha256)


AIME2024 = Source(
    name="aime2024",
    licence="MIT (repo)",
    files=(
        _file(
            "math/aime2024.json",
            "test/aime.json",
            "03fd341fee10fb71cf906be4eb3042081f314c4d16077489e41f9375085d20d2",
        ),
    ),
    reader=json_list,
    makers={"benchmarks": _benchmark},
    note=_NOTE,
)
AIME_PAST = Source(
    name="aime_1983_2023",
    licence="MIT (repo)",
    files=(
        _file(
            "math/aime1983_2023.json",
            "train/aime.json",
            "78f1b9bae6d00794b43e79a5842917f7ef4e355d9b705743c61f255f3c7c5d49",
        ),
    ),
    reader=json_list,
    makers={"problems": _problem},
    note=_NOTE,
)
