"""Whatever a completion holds: every other one keeps its verdict, in time, and nothing stays behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1kit import chat
from r1kit.rewards import VerifierPool
from tests.r1kit.rewards.problems import REPOSITORY, coded, descendants, fenced, judged, problem, until

SQUARE = "def square(x):\n    return x * x"
TESTS = "assert square(2) == 4\nassert square(-3) == 9"
DEADLINE_SECONDS = 3.0


@pytest.fixture
def watched(marker: Path) -> Iterator[tuple[VerifierPool, Path]]:
    """A pool with a short deadline whose processes can be told from all others."""
    with VerifierPool(workers=1, deadline_seconds=DEADLINE_SECONDS) as pool:
        yield pool, marker


def test_a_worker_that_is_killed_costs_no_verdict(watched: tuple[VerifierPool, Path]) -> None:
    pool, marker = watched
    assert pool.verify([coded(TESTS)], [fenced(SQUARE)])[0].score == 1
    until(lambda: len(descendants(marker)) == 2)
    for process in descendants(marker):  # the worker, or what it forks answers from
        if Path("/proc", str(process)).exists():
            os.kill(process, signal.SIGKILL)
        verdicts = pool.verify([coded(TESTS)] * 3, [fenced(SQUARE), fenced("square = abs"), fenced(SQUARE)])
        assert [verdict.score for verdict in verdicts] == [1, 0, 1]


def test_closing_right_after_a_verdict_leaves_no_scratch_folder(marker: Path) -> None:
    for _ in range(5):
        with VerifierPool(1, DEADLINE_SECONDS) as pool:
            assert pool.verify([coded(TESTS)], [fenced(SQUARE)])[0].score == 1
        assert list(marker.iterdir()) == [] and descendants(marker) == []


def test_an_interrupt_ends_everything_and_the_pool_can_be_used_again(marker: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with VerifierPool(1, 600) as pool:
            assert pool.verify([coded(TESTS)], [fenced(SQUARE)])[0].score == 1
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(KeyboardInterrupt):
                pool.verify([coded(TESTS)] * 2, [fenced("while True: pass"), fenced(SQUARE)])
            assert descendants(marker) == [] and list(marker.iterdir()) == []
            again = pool.verify([coded(TESTS)] * 2, [fenced(SQUARE), fenced("square = abs")])
            assert [verdict.score for verdict in again] == [1, 0]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_workers_end_when_their_program_is_killed(marker: Path) -> None:
    script = (
        "from r1kit.rewards import VerifierPool\n"
        "from tests.r1kit.rewards.problems import coded, fenced\n"
        "pool = VerifierPool(1, 600)\n"
        "pool.verify([coded('assert f() == 1')], [fenced('f = lambda: 1')])\n"
        "print('warm', flush=True)\n"
        "pool.verify([coded('assert f() == 1')], [fenced('while True: pass')])\n"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout and process.stdout.readline() == b"warm\n"
        until(lambda: len(descendants(marker)) == 5)  # the program, its worker, the zygote, tests, a loop
        process.kill()
    until(lambda: descendants(marker) == [])


def test_verdicts_come_in_the_order_of_the_completions() -> None:
    kinds = [
        (problem("math", "\\frac{1}{2}"), chat.response(None, "\\frac{2}{4}"), 1),
        (coded(TESTS), fenced("square = abs"), 0),
        (problem("choice", "B"), chat.response(None, "(B)"), 1),
        (problem("math", "18"), chat.response(None, "19"), 0),
        (coded(TESTS), fenced(SQUARE), 1),
        (problem("math", "\\frac{1}{2}"), chat.response(None, "\\frac{1}{3}"), 0),
    ] * 5
    with VerifierPool(workers=2, deadline_seconds=10) as pool:
        verdicts = pool.verify([row[0] for row in kinds], [row[1] for row in kinds])
        assert [verdict.score for verdict in verdicts] == [row[2] for row in kinds]
        pool.close()
        assert pool.verify([kinds[0][0]], [kinds[0][1]])[0].score == 1  # a closed pool starts anew
        assert pool.verify([], []) == []


@pytest.mark.parametrize("text", ["", "<think>", "<answer>18", "18</answer>", "<answer>18</answer><answer>18</answer>",
    "<think> </think> <answer></answer>", "<think> so <answer> 18 </answer>", "no number here" * 100])  # fmt: skip
def test_a_completion_without_one_answer_scores_0(pool: VerifierPool, text: str) -> None:
    assert pool.verify([problem("math", "18")], [text])[0].score == 0


@pytest.mark.parametrize("answer", ["1\0 8", "18\0", "\ud800", "18\u202e", "\x1b[31m18", "１８"])
def test_odd_characters_are_judged_not_stumbled_over(pool: VerifierPool, answer: str) -> None:
    assert judged(pool, "math", "18", answer).score in (0, 1)
    assert judged(pool, "choice", "B", answer).score == 0


def test_bad_problems_are_refused_by_name(pool: VerifierPool) -> None:
    with pytest.raises(ValueError, match=r"p/0: verifier 'none'"):
        pool.verify([problem("none")], ["<answer> x </answer>"])
    with pytest.raises(ValueError, match=r"p/0: meta must hold 'dataset'"):
        pool.verify([problem("gym")], ["<answer> x </answer>"])
    with pytest.raises(ValueError, match=r"p/0: meta is not JSON"):
        pool.verify([problem("gym", meta="{")], ["<answer> x </answer>"])


@pytest.mark.parametrize(("workers", "deadline"), [(0, 1.0), (1, 0.0), (-1, 1.0)])
def test_a_pool_that_cannot_work_is_refused(workers: int, deadline: float) -> None:
    with pytest.raises(ValueError, match=r"workers|deadline_seconds"):
        VerifierPool(workers, deadline)
