"""Whatever a completion holds: it gets its verdict in time, every other one keeps its own, and nothing stays behind."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1kit import chat
from r1kit.rewards import VerifierPool
from tests.r1kit.rewards.hostile import CASES, FIND, HONEST, LOOPS, OUTSIDE, PEEPHOLES, SECRET, SQUARE
from tests.r1kit.rewards.problems import descendants, fenced, until

DEADLINE_SECONDS = 1.5


@pytest.fixture
def watched(marker: Path) -> Iterator[tuple[VerifierPool, Path]]:
    """A pool with a short deadline whose processes can be told from all others."""
    with VerifierPool(workers=2, deadline_seconds=DEADLINE_SECONDS) as pool:
        yield pool, marker


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def kind(case_problem) -> str:
    return "code" if case_problem.verifier == "debug" else case_problem.verifier


def test_the_table_has_cases_enough() -> None:
    assert len(CASES) >= 60 and len({case.name for case in CASES}) == len(CASES)


def test_every_hostile_completion_gets_its_verdict_and_costs_nobody_theirs(watched: tuple[VerifierPool, Path]) -> None:
    pool, marker = watched
    before = descriptors()
    pairs = [pair for case in CASES for pair in ((case.problem, case.completion), HONEST[kind(case.problem)])]
    started = time.monotonic()
    verdicts = pool.verify([problem for problem, _ in pairs], [completion for _, completion in pairs])
    took = time.monotonic() - started
    wrong = {
        case.name: verdict
        for case, verdict in zip(CASES, verdicts[::2], strict=True)
        if verdict.score >= 1 or not verdict.reason or case.reason not in verdict.reason
    }
    assert wrong == {}
    assert [case.name for case, verdict in zip(CASES, verdicts[1::2], strict=True) if verdict.score != 1] == []
    late = {
        case.name: verdict.seconds
        for case, verdict in zip(CASES, verdicts[::2], strict=True)
        if verdict.seconds > DEADLINE_SECONDS + 2
    }
    assert late == {} and took < len(CASES) * (DEADLINE_SECONDS + 2)
    cut_off = {c.name for c, v in zip(CASES, verdicts[::2], strict=True) if "no verdict within" in v.reason}
    assert cut_off >= LOOPS.keys()
    pool.close()
    assert descendants(marker) == [] and descriptors() == before and list(marker.iterdir()) == []


def test_nothing_outside_the_scratch_folder_is_read_or_changed(watched: tuple[VerifierPool, Path]) -> None:
    pool, marker = watched
    folder = marker.parent
    old, new = folder / "old", folder / "new"
    old.write_text("kept")
    state = old.stat()
    programs = [text.format(old=str(old), new=str(new), folder=str(folder)) for text in OUTSIDE.values()]
    honest = "def square(x):\n    return x * x"
    verdicts = pool.verify([SQUARE] * len(programs), [fenced(f"{text}\n{honest}") for text in programs])
    assert {name: verdict.score for name, verdict in zip(OUTSIDE, verdicts, strict=True)} == dict.fromkeys(OUTSIDE, 0)
    now = old.stat()
    assert old.read_text() == "kept" and (now.st_mode, now.st_mtime_ns) == (state.st_mode, state.st_mtime_ns)
    assert sorted(entry.name for entry in folder.iterdir()) == ["old", "scratch"]


@pytest.mark.parametrize(
    "flood", ["print('x' * 10 ** 8)", "import os\nos.write(1, b'x' * 10 ** 8); os.write(2, b'x' * 10 ** 8)"]
)
def test_a_flood_of_output_goes_nowhere(pool: VerifierPool, flood: str) -> None:
    verdict = pool.verify([SQUARE], [fenced(f"{flood}\ndef square(x):\n    return x * x")])[0]
    assert verdict.score == 1, verdict.reason


def test_the_peepholes_would_work_in_the_open() -> None:
    """They are no straw men: in a process that has the tests, frames lead to the secret."""
    space: dict = {}
    exec(FIND + PEEPHOLES["getframe"], space)
    exec(compile(SECRET.tests, "tests", "exec"), space)


@pytest.mark.parametrize(
    "imitation",
    ['["", 1.0, "right"]', '"again"', "[1.0, 'right', 0.0]", "score: 1\n[1.0]\n", "\0"],
)
def test_text_that_imitates_a_verdict_is_an_answer_like_any_other(pool: VerifierPool, imitation: str) -> None:
    problem, right = HONEST["math"]
    verdicts = pool.verify([problem] * 2, [chat.response("so", imitation), right])
    assert [verdict.score for verdict in verdicts] == [0, 1]


def test_hundreds_of_verdicts_leave_nothing_behind(watched: tuple[VerifierPool, Path]) -> None:
    """`make bench-verify` does the same with ten thousand."""
    pool, marker = watched
    pairs = list(HONEST.values()) * 2
    pool.verify([problem for problem, _ in pairs], [completion for _, completion in pairs])
    until(lambda: len(descendants(marker)) == 8)  # of code two workers and their zygotes, of math and gym two workers
    open_files, before = descriptors(), _resident_bytes(marker)
    for _ in range(4):
        verdicts = pool.verify([problem for problem, _ in pairs] * 8, [completion for _, completion in pairs] * 8)
        assert all(verdict.score == 1 for verdict in verdicts)
    until(lambda: len(descendants(marker)) == 8)
    assert descriptors() == open_files
    assert _resident_bytes(marker) - before < 16 << 20


def _resident_bytes(marker: Path) -> int:
    """Memory of this process and all workers together."""
    pages = 0
    for process in ("self", *map(str, descendants(marker))):
        pages += int(Path("/proc", process, "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
