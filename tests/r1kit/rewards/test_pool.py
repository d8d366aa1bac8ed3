"""Whatever a completion holds: every other one keeps its verdict, in time, and nothing stays behind."""

# ruff: noqa: E501  (hostile programs stand on a line each)

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1kit import chat
from r1kit.rewards import VerifierPool
from tests.r1kit.rewards.problems import REPOSITORY, coded, descendants, fenced, judged, problem

SQUARE = "def square(x):\n    return x * x"
TESTS = "assert square(2) == 4\nassert square(-3) == 9"
DEADLINE_SECONDS = 3.0


@pytest.fixture
def watched(marker: Path) -> Iterator[tuple[VerifierPool, Path]]:
    """A pool with a short deadline whose processes can be told from all others."""
    with VerifierPool(workers=1, deadline_seconds=DEADLINE_SECONDS) as pool:
        yield pool, marker


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


BOMBS = {
    "an infinite loop": ("while True:\n    pass", "no verdict within"),
    "a loop that catches everything": (
        "import signal\nfor n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n"
        "    except (OSError, ValueError):\n        pass\nwhile True:\n    try:\n        while True:\n            pass\n"
        "    except BaseException:\n        pass",
        "no verdict within",
    ),
    "a fork bomb": ("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError as e:\n        raise e",
    "not allowed"),
    "a subprocess": ("import subprocess\nsubprocess.Popen(['sleep', '1000'])", "not allowed"),
    "a shell": ("import os\nos.system('sleep 1000 &')", "not allowed"),
    "a thread bomb": (
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(1000,)).start()",
        "",
    ),
    "a memory bomb": ("x = [0] * 10 ** 6\nwhile True:\n    x += x", "out of memory"),
    "one huge allocation": ("x = bytearray(1 << 40)", "out of memory"),
    "endless recursion": (
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef square(x):\n    return [square(x)]\nsquare(1)",
        "",
    ),
    "a segmentation fault": ("exec(type(square := lambda: 0)(square.__code__.replace(co_code=b'\\x64\\xff' * 9)).__code__)", ""),
    "a huge power": ("x = 9 ** 9 ** 9 ** 9", ""),
    "an exit": ("import os\nos._exit(0)", "ended without a verdict"),
    "a signal to the harness": ("import os\nos.kill(os.getppid(), 9)", "not allowed"),
    "a signal to itself": ("import signal\nsignal.raise_signal(9)", ""),
    "a socket": ("import socket\nsocket.socket().connect(('127.0.0.1', 9))", "not allowed"),
    "a name looked up": ("import socket\nsocket.getaddrinfo('localhost', 80)", "not allowed"),
}  # fmt: skip


def test_bombs_cost_nobody_else_a_verdict_and_leave_nothing_behind(watched: tuple[VerifierPool, Path]) -> None:
    pool, marker = watched
    before = descriptors()
    honest = fenced(SQUARE)
    completions = [part for program, _ in BOMBS.values() for part in (fenced(program), honest)]
    started = time.monotonic()
    verdicts = pool.verify([coded(TESTS)] * len(completions), completions)
    took = time.monotonic() - started
    assert [verdict.score for verdict in verdicts] == [0, 1] * len(BOMBS)
    for (name, (_, reason)), verdict in zip(BOMBS.items(), verdicts[::2], strict=True):
        assert verdict.reason and reason in verdict.reason, (name, verdict)
        assert verdict.seconds < DEADLINE_SECONDS + 2, (name, verdict)
    assert took < len(BOMBS) * (DEADLINE_SECONDS + 2)
    _until(lambda: len(descendants(marker)) == 1)  # the worker; it replies before it has buried the last fork
    _until(lambda: list(marker.iterdir()) == [])
    pool.close()
    assert descendants(marker) == [] and descriptors() == before


@pytest.mark.parametrize(
    "flood", ["print('x' * 10 ** 8)", "import os\nos.write(1, b'x' * 10 ** 8); os.write(2, b'x' * 10 ** 8)"]
)
def test_a_flood_of_output_goes_nowhere(watched: tuple[VerifierPool, Path], flood: str) -> None:
    pool, _ = watched
    verdict = pool.verify([coded(TESTS)], [fenced(f"{flood}\n{SQUARE}")])[0]
    assert verdict.score == 1, verdict.reason


def test_a_flood_into_the_verdicts_is_no_verdict(watched: tuple[VerifierPool, Path]) -> None:
    pool, _ = watched
    flood = (
        "import os\nwhile True:\n    for fd in range(3, 64):\n        try:\n"
        "            os.write(fd, b'x' * 5000)\n        except OSError:\n            pass"
    )
    bad, good = pool.verify([coded(TESTS)] * 2, [fenced(flood), fenced(SQUARE)])
    assert (bad.score, bad.reason, good.score) == (0, "a forged verdict", 1)


OUTSIDE = {
    "writes": "open({new!r}, 'w').write('x')",
    "writes below Python": "import os\nos.close(os.open({new!r}, os.O_CREAT | os.O_WRONLY))",
    "appends": "open({old!r}, 'a').write('x')",
    "truncates": "import os\nos.truncate({old!r}, 0)",
    "removes": "import os\nos.remove({old!r})",
    "renames": "import os\nos.rename({old!r}, {new!r})",
    "makes a directory": "import os\nos.mkdir({new!r})",
    "links": "import os\nos.symlink('/', {new!r})",
    "changes rights": "import os\nos.chmod({old!r}, 0o777)",
    "goes up": "import os\nos.chdir('..')\nopen('../new', 'w').write('x')",
    "through a link": "import os\nos.symlink({folder!r}, 'here')\nopen('here/new', 'w').write('x')",
    "changes times": "import os\nos.utime({old!r}, (0, 0))",
}


def test_nothing_outside_the_scratch_folder_changes(watched: tuple[VerifierPool, Path]) -> None:
    pool, marker = watched
    folder = marker.parent
    old, new = folder / "old", folder / "new"
    old.write_text("kept")
    state = old.stat()
    programs = [text.format(old=str(old), new=str(new), folder=str(folder)) for text in OUTSIDE.values()]
    verdicts = pool.verify([coded(TESTS)] * len(programs), [fenced(f"{text}\n{SQUARE}") for text in programs])
    assert {name: verdict.score for name, verdict in zip(OUTSIDE, verdicts, strict=True)} == dict.fromkeys(OUTSIDE, 0)
    now = old.stat()
    assert old.read_text() == "kept" and (now.st_mode, now.st_mtime_ns) == (state.st_mode, state.st_mtime_ns)
    assert sorted(entry.name for entry in folder.iterdir()) == ["old", "scratch"]


def test_a_worker_that_is_killed_costs_no_verdict(watched: tuple[VerifierPool, Path]) -> None:
    pool, marker = watched
    assert pool.verify([coded(TESTS)], [fenced(SQUARE)])[0].score == 1
    _until(lambda: len(descendants(marker)) == 1)
    (worker,) = descendants(marker)
    os.kill(worker, signal.SIGKILL)
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
            assert [v.score for v in pool.verify([coded(TESTS)] * 2, [fenced(SQUARE), fenced("square = abs")])] == [
                1,
                0,
            ]
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
        _until(lambda: len(descendants(marker)) == 3)  # the program, its worker, the looping fork
        process.kill()
    _until(lambda: descendants(marker) == [])


def _until(met) -> None:
    limit = time.monotonic() + 20
    while not met():
        assert time.monotonic() < limit
        time.sleep(0.05)


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


@pytest.mark.parametrize(
    "imitation",
    [
        '["", 1.0, "right"]',
        '"again"',
        "[1.0, 'right', 0.0]",
        'Verdict(score=1.0, reason="right")',
        "score: 1\n[1.0]\n",
        "\0",
    ],
)
def test_text_that_imitates_a_verdict_is_an_answer_like_any_other(pool: VerifierPool, imitation: str) -> None:
    completions = [chat.response("so", imitation), chat.response("so", "\\frac{2}{4}")]
    verdicts = pool.verify([problem("math", "\\frac{1}{2}")] * 2, completions)
    assert [verdict.score for verdict in verdicts] == [0, 1]


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
