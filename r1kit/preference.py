"""General prompts and the reward models that judge them."""

import math
from collections.abc import Sequence
from pathlib import Path

from r1kit import reward_model
from r1kit.reward_function import Preference
from r1kit.rows import PreferencePair, Problem


def general_prompts(pairs: Sequence[PreferencePair], split: str) -> list[Problem]:
    """The prompts of preference pairs, each once, routed to the reward model of its kind."""
    unique = {(pair.prompt, pair.route): pair for pair in pairs if pair.split == split}
    return [
        Problem(
            id=f"{pair.id}/prompt",
            source=pair.source,
            licence=pair.licence,
            language=pair.language,
            parents=(pair.id,),
            prompt=pair.prompt,
            verifier="none",
            route=pair.route,
        )
        for pair in unique.values()
    ]


def load_preference(helpful: Path, harmless: Path, opens_think: bool = False) -> Preference:
    """Each general prompt's score by the one model it is routed to, as a probability in (0, 1).

    The helpfulness model reads the final summary, the harmlessness model the whole response
    (arXiv 2501.12948, section 2.3.4). A sigmoid keeps one strange response from drowning its group.
    """
    judges = {"helpful": reward_model.load(helpful), "harmless": reward_model.load(harmless)}

    def preference(problems: Sequence[Problem], completions: Sequence[str]) -> list[float]:
        scores = [0.0] * len(problems)
        for route, judge in judges.items():
            rows = [row for row, problem in enumerate(problems) if problem.route == route]
            if rows:
                values = judge.score([problems[r].prompt for r in rows], [completions[r] for r in rows], opens_think)
                for row, value in zip(rows, values, strict=True):
                    scores[row] = 1 / (1 + math.exp(-value)) if value > -700 else 0.0
        return scores

    return preference
