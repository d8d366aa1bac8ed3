"""From completions to the components of their reward, for reasoning and for general prompts."""

from collections.abc import Callable, Sequence

from r1kit.chat import is_reply, parse
from r1kit.rewards import VerifierPool, format_reward, language_share
from r1kit.rows import Problem
from r1kit.sampler import Completion

Preference = Callable[[Sequence[Problem], Sequence[str]], Sequence[float]]
"""Scores of general responses in (0, 1), each by the reward model its prompt is routed to."""


def reward_function(
    pool: VerifierPool, opens_think: bool, preference: Preference | None = None
) -> Callable[[Sequence[Problem], Sequence[Completion]], list[dict[str, float]]]:
    """The reward of a training: rules for reasoning prompts, reward models for general ones.

    Components (arXiv 2501.12948, sections 2.2 and 3.2): `accuracy` from the verifier, `format`, `language` (share
    of the chain in the prompt's language), and for general prompts `preference` instead of accuracy.

    Args:
        pool: verifies answers in worker processes.
        opens_think: whether the chat template already opened `<think>`.
        preference: scores general prompts; without it they get no preference component.
    """

    def reward(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[dict[str, float]]:
        texts = [completion.text for completion in completions]
        rows = [_form(p, c, opens_think) for p, c in zip(problems, completions, strict=True)]
        verifiable = [i for i, problem in enumerate(problems) if problem.verifier != "none"]
        general = [i for i, problem in enumerate(problems) if problem.verifier == "none"]
        if verifiable:
            verdicts = pool.verify([problems[i] for i in verifiable], [texts[i] for i in verifiable], opens_think)
            for i, verdict in zip(verifiable, verdicts, strict=True):
                rows[i]["accuracy"] = float(verdict.score >= 1.0)
        if general and preference:
            scores = preference([problems[i] for i in general], [texts[i] for i in general])
            for i, score in zip(general, scores, strict=True):
                rows[i]["preference"] = float(score)
        return rows

    return reward


def _form(problem: Problem, completion: Completion, opens_think: bool) -> dict[str, float]:
    parsed = parse(completion.text, opens_think)
    judged = parsed.think if parsed.think is not None else completion.text
    if problem.verifier == "none":
        well_formed = float(completion.finished and is_reply(completion.text, opens_think))
    else:
        well_formed = format_reward(completion.text, opens_think)
    return {"format": well_formed, "language": language_share(judged, problem.language)}
