"""The self-test of verification: every gold answer must score 1, or its problem is not fit to train on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from r1kit import chat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from r1kit.rewards.pool import VerifierPool
    from r1kit.rewards.verdict import Verdict
    from r1kit.rows import Problem


def gold_response(problem: Problem) -> str:
    """What a perfect model would write: the gold answer, for code the reference solution."""
    if problem.verifier == "code":
        return chat.response(None, f"```python\n{problem.solution}\n```")
    return chat.response(None, problem.answer)


def check_gold(pool: VerifierPool, problems: Sequence[Problem]) -> list[Verdict]:
    """The verdicts on the gold answers. Where one is below 1, nobody's answer to that problem can be verified.

    A gold answer that takes more than half the deadline fails too: on a busy machine it would be judged by chance.
    """
    verdicts = pool.verify(problems, [gold_response(problem) for problem in problems])
    return [_in_time(verdict, pool.deadline_seconds / 2) for verdict in verdicts]


def _in_time(verdict: Verdict, limit_seconds: float) -> Verdict:
    if verdict.score < 1 or verdict.seconds <= limit_seconds:
        return verdict
    return replace(verdict, score=0.0, reason=f"right, but only after {verdict.seconds:.1f} s")
