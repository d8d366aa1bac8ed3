"""The verifiers on real data: `make bench-verify`. A part on its own: `make bench-verify ARGS="--only speed"`.

    golds    every gold answer against itself, on every row of the mathematical data sets and of MBPP and HumanEval
    labels   verdicts on 5,276 solutions of models to GSM8K, against the labels that people gave them
    mutants  verdicts on programs with one fault, against what ordinary Python says of the same programs and tests
    leaks    processes, descriptors and memory after ten thousand verdicts, hostile ones among them
    speed    verdicts a second, beside plain math-verify with as many processes on the same inputs, in turns

Prints what it finds as it goes, and last one JSON object. Exit status 1 where a part fails its bound.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.plain_python import passes
from benchmarks.real_rows import labelled_solutions, problems
from benchmarks.verify_speed import speed
from r1kit.chat import final_answer
from r1kit.data.mutants import mutants
from r1kit.rewards import VerifierPool, check_gold
from tests.r1kit.rewards.hostile import CASES, HONEST, LOOPS
from tests.r1kit.rewards.problems import descendants, fenced, until

WORKERS = 2
DEADLINE_SECONDS = 10.0
MATHEMATICS = ("gsm8k_train", "gsm8k_test", "math500", "math_train", "math_test", "aime2024", "aime_1983_2023", "cmath")
PROGRAMS = ("mbpp", "humaneval")
MIN_AGREEMENT = 0.995
NUM_LEAK_VERDICTS = 10_000
MAX_GROWTH_BYTES = 32 << 20
MUTANTS_A_PROGRAM = 2


def golds() -> tuple[dict[str, Any], bool]:
    """Gold against gold."""
    found: dict[str, Any] = {}
    with VerifierPool(WORKERS, DEADLINE_SECONDS) as pool:
        for name in (*MATHEMATICS, *PROGRAMS):
            rows, bad = problems(name)
            verdicts = check_gold(pool, rows)
            failed = [(row.id, v.reason) for row, v in zip(rows, verdicts, strict=True) if v.score < 1]
            for row in bad:
                print(f"{name}  row {row.row}, {row.field}: {row.value[:60]!r} {row.reason}")
            for id_, reason in failed:
                print(f"{name}  {id_}: {reason}")
            found[name] = {"rows": len(rows) + len(bad), "verified": len(rows) - len(failed), "set_aside": len(bad),
                           "failed": len(failed)}  # fmt: skip
            print(f"golds  {name}: {found[name]}", flush=True)
    return found, not any(part["failed"] for part in found.values())


def labels() -> tuple[dict[str, Any], bool]:
    """Agreement with people."""
    rows, texts, given = labelled_solutions()
    with VerifierPool(WORKERS, DEADLINE_SECONDS) as pool:
        verdicts = pool.verify(rows, texts)
    apart = [n for n, (v, label) in enumerate(zip(verdicts, given, strict=True)) if (v.score >= 1) != label]
    for n in apart:
        print(f"labels  {rows[n].id}: gold {rows[n].answer!r}, answer {final_answer(texts[n])!r}, "
              f"label {given[n]}, verdict {verdicts[n].reason}")  # fmt: skip
    agreement = 1 - len(apart) / len(given)
    print(f"labels  {len(given) - len(apart)} of {len(given)} agree", flush=True)
    return {"solutions": len(given), "agree": len(given) - len(apart)}, agreement >= MIN_AGREEMENT


def faults() -> tuple[dict[str, Any], bool]:
    """What should be killed is killed, and nothing else."""
    found: dict[str, Any] = {}
    with VerifierPool(WORKERS, DEADLINE_SECONDS) as pool:
        for name in PROGRAMS:
            rows, _ = problems(name)
            pairs = [(row, text) for row in rows for text in islice(mutants(row.solution, 1), MUTANTS_A_PROGRAM)]
            verdicts = pool.verify([row for row, _ in pairs], [fenced(text) for _, text in pairs])
            ordinary = [passes(row, text) for row, text in pairs]
            apart = [n for n, v in enumerate(verdicts) if (v.score >= 1) != ordinary[n]]
            for n in apart:
                print(f"mutants  {pairs[n][0].id}: ordinary Python {'passes' if ordinary[n] else 'fails'}, "
                      f"the verdict is {verdicts[n].reason!r}\n{pairs[n][1]}")  # fmt: skip
            killed = sum(v.score < 1 for v in verdicts)
            found[name] = {"mutants": len(pairs), "killed": killed, "killed_by_ordinary_python": ordinary.count(False),
                           "apart": len(apart)}  # fmt: skip
            print(f"mutants  {name}: {found[name]}", flush=True)
    return found, not any(part["apart"] for part in found.values())


def leaks() -> tuple[dict[str, Any], bool]:
    """Nothing stays behind."""
    cases = [case for case in CASES if case.name not in LOOPS]
    pairs = [(case.problem, case.completion) for case in cases] + list(HONEST.values()) * 60
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = tempfile.tempdir = folder
        marker = Path(folder)
        with VerifierPool(WORKERS, DEADLINE_SECONDS) as pool:
            for done in range(0, NUM_LEAK_VERDICTS + len(pairs), len(pairs)):
                pool.verify([problem for problem, _ in pairs], [text for _, text in pairs])
                print(f"leaks  {done + len(pairs):,} of {NUM_LEAK_VERDICTS:,} verdicts", file=sys.stderr, flush=True)
                if done == 0:
                    until(lambda: len(descendants(marker)) == 4 * WORKERS)
                    before = _settled(marker)
            until(lambda: len(descendants(marker)) == 4 * WORKERS)
            after = _settled(marker)
        left = {"processes": len(descendants(marker)), "files": len(list(marker.iterdir()))}
    growth = after["bytes"] - before["bytes"]
    print(f"leaks  after {done + len(pairs):,} verdicts: {before} -> {after}; closed: {left}", flush=True)
    found = {"verdicts": done + len(pairs), "before": before, "after": after, "left_when_closed": left}
    more = [name for name in ("processes", "descriptors") if after[name] > before[name]]
    return found, not more and not any(left.values()) and growth < MAX_GROWTH_BYTES


def _settled(marker: Path) -> dict[str, int]:
    """The state once no worker is just being started, which holds a descriptor for a moment."""
    looks = []
    for _ in range(20):
        looks.append(_state(marker))
        time.sleep(0.05)
    return min(looks, key=lambda look: look["descriptors"])


def _state(marker: Path) -> dict[str, int]:
    """Processes, open descriptors and resident memory of this process and its workers."""
    processes = ["self", *map(str, descendants(marker))]
    pages = sum(int(Path("/proc", name, "statm").read_text().split()[1]) for name in processes)
    descriptors = sum(len(os.listdir(f"/proc/{name}/fd")) for name in processes)
    return {"processes": len(processes), "descriptors": descriptors, "bytes": pages * os.sysconf("SC_PAGE_SIZE")}


PARTS: dict[str, Callable[[], tuple[dict[str, Any], bool]]] = {
    "golds": golds, "labels": labels, "mutants": faults, "leaks": leaks, "speed": lambda: speed(WORKERS),
}  # fmt: skip


def main() -> int:
    """Exit status 0 where every part keeps its bound."""
    parser = argparse.ArgumentParser(prog="make bench-verify", description=__doc__.splitlines()[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--only", choices=list(PARTS), action="append", help="a part; may be repeated")
    chosen = parser.parse_args().only or list(PARTS)
    results = {name: PARTS[name]() for name in chosen}
    found = {name: part for name, (part, _) in results.items()}
    kept = {name: good for name, (_, good) in results.items()}
    print(json.dumps({"benchmark": "verify", "cores": len(os.sched_getaffinity(0)), "workers": WORKERS, "kept": kept,
                      **found}))  # fmt: skip
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
