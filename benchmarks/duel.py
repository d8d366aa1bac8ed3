"""Two programs at the same work, turn about: each waits, without a thread running, while the other is timed.

A side is a script that reads lines from its standard input; `play` answers each with what it measured of one round.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT


class Side:
    """One of the two, as a process that has loaded its model and waits."""

    def __init__(self, name: str, command: Sequence[str], threads: int) -> None:
        self.name = name
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self._told("ready")

    def round(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Play one round, knowing what the other side `told` of it, where that came first."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        return self._told("seconds")

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()

    def _told(self, key: str) -> dict[str, Any]:
        """The next line of JSON that has `key`; everything else that it prints is passed over."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for line in self._process.stdout:
            if line.startswith("{") and key in (told := json.loads(line)):
                return told
        raise RuntimeError(f"{self.name} ended early: {self._process.stderr.read()[-3000:]}")


def play(one_round: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """A side's own loop: one round for every line that comes in, which says what the other side told of it."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        started = time.perf_counter()
        told = dict(one_round(given))
        report(time.perf_counter() - started, told)


def report(seconds: float, told: Mapping[str, Any]) -> None:
    """Say how long a round took, and the most memory the process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak, **told}), flush=True)


def duel(
    row: str,
    ours: Sequence[str],
    theirs: Sequence[str],
    rounds: int,
    threads: int,
    necessary: Callable[[Any], float],
) -> dict[str, Any]:
    """Play `rounds` rounds each, turn about, after one that does not count.

    Args:
        row: what the work is called.
        necessary: floating-point operations that a round needs at least, from the `groups` that a side says it had:
            tokens of a prompt, and of each answer to it.

    Returns:
        The ratio of speeds (median and range over the rounds) and what it comes from. Speed is rounds a second, or
        tokens a second where the sides say how many `tokens` a round had. What stands in twos is r1kit's and the
        rival's, the median of the rounds.
    """
    say(f"{row}: loading both sides")
    sides = Side("r1kit", ours, threads), Side("the rival", theirs, threads)
    seen: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for number in range(rounds + 1):
        seen[0].append(sides[0].round({}))
        seen[1].append(sides[1].round(seen[0][-1]))
        last = seen[0][-1], seen[1][-1]
        seconds = f"{last[0]['seconds']:.2f} s against {last[1]['seconds']:.2f} s"
        say(f"{row}: {'warm-up' if number == 0 else f'round {number} of {rounds}'}: {seconds}")
    for side in sides:
        side.close()
    counted = seen[0][1:], seen[1][1:]
    speeds = [[told.get("tokens", 1) / told["seconds"] for told in side] for side in counted]
    ratios = [a / b for a, b in zip(*speeds, strict=True)]
    peaks = [side[-1]["peak_bytes"] for side in seen]
    flops = [[necessary(told["groups"]) for told in side] for side in counted]
    peak = matmul_peak(threads)
    shares = [
        [needed / told["seconds"] / peak for needed, told in zip(*pair, strict=True)]
        for pair in zip(flops, counted, strict=True)
    ]
    result = {
        "row": row,
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "seconds": [round(statistics.median(told["seconds"] for told in side), 4) for side in counted],
        "peak_bytes": peaks,
        "peak_ratio": round(peaks[0] / peaks[1], 3),
        "rounds": rounds,
        "answer_tokens": [
            statistics.median(sum(sum(answers) for _, answers in told["groups"]) for told in side) for side in counted
        ],
        "necessary_flops": [statistics.median(side) for side in flops],
        "matmul_flops_per_second": peak,
        "share_of_peak": [round(statistics.median(side), 3) for side in shares],
    }
    if "tokens" in seen[0][-1]:
        result["tokens_per_second"] = [round(statistics.median(speed), 1) for speed in speeds]
    if "parts" in seen[0][-1]:
        names = seen[0][-1]["parts"]
        result["our_parts_seconds"] = {
            name: round(statistics.median(told["parts"][name] for told in counted[0]), 4) for name in names
        }
    return result


def matmul_peak(threads: int) -> float:
    """Floating-point operations a second of a 2048 x 2048 float32 product, the best of five."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


def say(line: str) -> None:
    """A line for whoever watches."""
    print(line, file=sys.stderr, flush=True)


def script(name: str) -> str:
    """Path of a script of this folder."""
    return str(Path(__file__).parent / name)
