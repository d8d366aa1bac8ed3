"""Verdicts a second, ours and plain math-verify's in turns: the same processes, the same inputs."""

import importlib.metadata
import logging
import multiprocessing
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.real_rows import labelled_solutions, problems
from r1kit.chat import response
from r1kit.data.mutants import mutants
from r1kit.rewards import VerifierPool
from r1kit.rewards.gold import gold_response
from r1kit.rows import Problem
from tests.r1kit.rewards.problems import fenced

ROUNDS = 5
NUM_GSM8K, NUM_MATH, NUM_CODE = 2000, 1000, 400
MIN_MATH_RATE, MIN_CODE_RATE = 2000.0, 40.0
DEADLINE_SECONDS = 5.0

Load = tuple[list[Problem], list[str]]


def speed(workers: int) -> tuple[dict[str, Any], bool]:
    """Rounds of ours, theirs, and programs; both sides are warm before the first."""
    loads = {"gsm8k": _gsm8k(), "math": _math()}
    code = _code()
    ours: dict[str, list[float]] = {name: [] for name in (*loads, "code")}
    theirs: dict[str, list[float]] = {name: [] for name in loads}
    waited = dict.fromkeys(ours, 0.0)
    verdicts: dict[str, list[bool]] = {}
    rival: dict[str, list[bool]] = {}
    logging.disable(logging.WARNING)
    context = multiprocessing.get_context("fork")
    with VerifierPool(workers, DEADLINE_SECONDS) as pool, context.Pool(workers) as plain:
        for load in (*loads.values(), code):
            pool.verify(load[0][:200], load[1][:200])
        plain.map(_plain, list(zip([p.answer for p in loads["math"][0][:200]], loads["math"][1][:200], strict=True)))
        for turn in range(ROUNDS):
            for name, load in loads.items():
                took, waiting, verdicts[name] = _ours(pool, load)
                ours[name].append(took)
                waited[name] += waiting
                took, rival[name] = _theirs(plain, load, workers)
                theirs[name].append(took)
            took, waiting, _ = _ours(pool, code)
            ours["code"].append(took)
            waited["code"] += waiting
            said = ", ".join(f"{name} {ours[name][-1]:.2f} s against {theirs[name][-1]:.2f} s" for name in loads)
            print(f"speed  round {turn + 1}: {said}; code {took:.2f} s", flush=True)
    return _summary(loads | {"code": code}, ours, theirs, waited, verdicts, rival)


def _summary(
    loads: dict[str, Load],
    ours: dict[str, list[float]],
    theirs: dict[str, list[float]],
    waited: dict[str, float],
    verdicts: dict[str, list[bool]],
    rival: dict[str, list[bool]],
) -> tuple[dict[str, Any], bool]:
    found: dict[str, Any] = {"rival": {"math-verify": importlib.metadata.version("math-verify")}, "rounds": ROUNDS}
    for name, (rows, _) in loads.items():
        part: dict[str, Any] = {
            "verdicts": len(rows),
            "seconds": {"r1kit": _rounded(ours[name])},
            "rate": {"r1kit": round(len(rows) / statistics.median(ours[name]), 1)},
            "waiting_share": round(waited[name] / sum(ours[name]), 3),
        }
        if name in theirs:
            part["seconds"]["math-verify"] = _rounded(theirs[name])
            part["rate"]["math-verify"] = round(len(rows) / statistics.median(theirs[name]), 1)
            part["ratio"] = _ratio(ours[name], theirs[name])
            part["verdicts_that_differ"] = {
                "right_for_r1kit_alone": sum(a and not b for a, b in zip(verdicts[name], rival[name], strict=True)),
                "right_for_math-verify_alone": sum(
                    b and not a for a, b in zip(verdicts[name], rival[name], strict=True)
                ),
            }
        found[name] = part
    both = [
        [sum(times) for times in zip(*side.values(), strict=True)] for side in ({n: ours[n] for n in theirs}, theirs)
    ]
    num = sum(len(loads[name][0]) for name in theirs)
    found["mathematics"] = {
        "verdicts": num,
        "rate": {
            "r1kit": round(num / statistics.median(both[0]), 1),
            "math-verify": round(num / statistics.median(both[1]), 1),
        },
        "ratio": _ratio(*both),
    }
    fast = found["mathematics"]["rate"]["r1kit"] >= MIN_MATH_RATE and found["code"]["rate"]["r1kit"] >= MIN_CODE_RATE
    return found, fast


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """How many times as long math-verify took."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {"median": round(statistics.median(ratios), 2), "low": round(min(ratios), 2), "high": round(max(ratios), 2)}


def _rounded(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(seconds), 3),
        "low": round(min(seconds), 3),
        "high": round(max(seconds), 3),
    }


def _ours(pool: VerifierPool, load: Load) -> tuple[float, float, list[bool]]:
    started, waited = time.perf_counter(), pool.waited_seconds
    verdicts = pool.verify(*load)
    return time.perf_counter() - started, pool.waited_seconds - waited, [verdict.score >= 1 for verdict in verdicts]


def _theirs(plain: Any, load: Load, workers: int) -> tuple[float, list[bool]]:
    started = time.perf_counter()
    pairs = list(zip([problem.answer for problem in load[0]], load[1], strict=True))
    verdicts = plain.map(_plain, pairs, max(1, len(pairs) // (workers * 4)))
    return time.perf_counter() - started, verdicts


def _plain(pair: tuple[str, str]) -> bool:
    """math-verify as its own documentation uses it."""
    from math_verify import parse, verify

    gold, completion = pair
    return bool(verify(parse(f"${gold}$"), parse(completion)))


def _gsm8k() -> Load:
    """Solutions of models to GSM8K, right ones and wrong ones."""
    rows, texts, _ = labelled_solutions()
    chosen = random.Random(1).sample(range(len(rows)), NUM_GSM8K)
    return [rows[n] for n in chosen], [texts[n] for n in chosen]


def _math() -> Load:
    """MATH: the people's own solutions, and as many that end on the answer to another problem of the same look."""
    rows = random.Random(2).sample([row for row in problems("math_test")[0] if row.solution], NUM_MATH)
    half = NUM_MATH // 2
    others: dict[str, list[str]] = {}
    for row in rows:
        others.setdefault(_look(row.answer), []).append(row.answer)
    rng = random.Random(3)
    right = [response(row.solution, f"\\boxed{{{row.answer}}}") for row in rows[:half]]
    wrong = [response(row.solution, f"\\boxed{{{rng.choice(others[_look(row.answer)])}}}") for row in rows[half:]]
    return rows, right + wrong


def _look(answer: str) -> str:
    return "".join(sign for sign in answer if not sign.isalnum())[:2]


def _code() -> Load:
    """Programs that pass, and as many with a fault."""
    rows = random.Random(4).sample([row for name in ("mbpp", "humaneval") for row in problems(name)[0]], NUM_CODE // 2)
    faulty = [next(mutants(row.solution, 1), row.solution) for row in rows]
    return [*rows, *rows], [*map(gold_response, rows), *map(fenced, faulty)]
