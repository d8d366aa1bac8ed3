"""The self-test of verification: every gold answer must score 1, or its problem is not fit to train on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from r1kit import chat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from r1kit.rewards.pool import VerifierPool
    from r1kit.rewards.verdict import Verdict
    from r1kit.rows import Problem


SURVIVES = "the faulty program passes its tests"
"""The reason of a verdict on a program for debugging that the tests do not tell from a sound one."""


def gold_response(problem: Problem) -> str:
    """What a perfect model would write: the gold answer, for code the reference solution."""
    if problem.verifier in ("code", "debug"):
        return chat.response(None, f"```python\n{problem.solution}\n```")
    return chat.response(None, problem.answer)


def check_gold(pool: VerifierPool, problems: Sequence[Problem]) -> list[Verdict]:
    """The verdicts on the gold answers. Where one is below 1, nobody's answer to that problem can be verified.

    A gold answer that takes more than half the deadline fails too: on a busy machine it would be judged by chance.
    So does a program for debugging that passes its tests as it is: there is nothing to mend.
    """
    verdicts = pool.verify(problems, [gold_response(problem) for problem in problems])
    verdicts = [_in_time(verdict, pool.deadline_seconds / 2) for verdict in verdicts]
    places = [n for n, problem in enumerate(problems) if problem.verifier == "debug" and verdicts[n].score >= 1]
    as_given = pool.verify([problems[n] for n in places], [_as_given(problems[n]) for n in places])
    for n, verdict in zip(places, as_given, strict=True):
        if verdict.score >= 1:
            verdicts[n] = replace(verdict, score=0.0, reason=SURVIVES)
    return verdicts


def _as_given(problem: Problem) -> str:
    """A response that mends nothing."""
    return chat.response(None, f"```python\n{json.loads(problem.meta)['faulty']}\n```")


def _in_time(verdict: Verdict, limit_seconds: float) -> Verdict:
    if verdict.score < 1 or verdict.seconds <= limit_seconds:
        return verdict
    return replace(verdict, score=0.0, reason=f"right, but only after {verdict.seconds:.1f} s")
