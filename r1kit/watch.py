"""Signs that a training is dead: what is counted step by step, and when it is better to stop.

All of it is a function of the metrics of the steps, so that a resumed run stops at the same step.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field

from r1kit.schema import Section

_SOLVED = 0.99
_REMEDIES = {
    "nonfinite": "lower learning_rate",
    "truncated": "raise sampling.max_tokens",
    "zero_variance": "take easier or harder problems, or more samples_per_prompt",
    "kl": "lower learning_rate or raise kl_coefficient",
    "constant": "mend what gives it, or set its weight in rewards to 0",
}


class FiniteWatch(Section):
    """When a training stops because it is dead."""

    nonfinite_steps: int | None = Field(default=3, gt=0)
    """Steps in a row with a loss or a gradient that is not finite; such a step changes nothing."""

    @property
    def limits(self) -> dict[str, int | None]:
        """Sign → steps in a row that it may last."""
        return {name.removesuffix("_steps"): value for name, value in self if name.endswith("_steps")}


class WatchConfig(FiniteWatch):
    """When RL stops because it is dead. Each number of steps can be null: then that sign stops nothing."""

    truncated_share: float = Field(default=0.95, gt=0, le=1)
    """Share of completions cut at the token limit that is a bad sign: what is cut is rewarded for nothing it did."""
    truncated_steps: int | None = Field(default=20, gt=0)
    """Steps in a row with that share."""
    zero_variance_share: float = Field(default=0.99, gt=0, le=1)
    """Share of groups without variance that is a bad sign: nothing is learned from them. Not counted where the reward
    is at its best, because then nothing is left to learn."""
    zero_variance_steps: int | None = Field(default=50, gt=0)
    """Steps in a row with that share."""
    kl_limit: float = Field(default=5.0, gt=0)
    """KL estimate to the reference, in nats a token, above which the policy has left it."""
    kl_steps: int | None = Field(default=3, gt=0)
    """Steps in a row above that limit."""
    constant_steps: int | None = Field(default=50, gt=0)
    """Steps in a row in which the mean of a reward component with a weight does not move at all while it is not at its
    best: a verifier or a parser that is broken, or problems out of reach. A format that is always right is no sign."""


@dataclass(frozen=True)
class Alarm:
    """A sign that has lasted too long."""

    steps: int
    """How long."""
    words: str
    """What was seen, what to do about it, and how to go on regardless."""


class Watch(Section):
    """How many steps in a row each sign has lasted; part of a training's state."""

    counts: dict[str, int] = {}
    """Sign → steps; a constant component is called `constant <name>`."""
    components: dict[str, float] = {}
    """Mean of each reward component when it was last seen."""

    def after_update(self, metrics: Mapping[str, float]) -> "Watch":
        """After a step of any training: whether its `loss` and `gradient_norm` are finite, and in RL what was sampled.

        A model of NaN gives all answers of a group the same tokens, and then no loss would show it.
        """
        signs = ("loss", "gradient_norm", "sampled_logprob")
        finite = all(math.isfinite(metrics[name]) for name in signs if name in metrics)
        return self._counted({"nonfinite": not finite})

    def after_rollout(self, metrics: Mapping[str, float], config: WatchConfig, weights: Mapping[str, float]) -> "Watch":
        """After a step of RL as well: what its rollout shows (`rollout.describe`).

        Args:
            weights: of the reward components.
        """
        means = {name: metrics[f"reward_{name}"] for name in weights if weights[name] and f"reward_{name}" in metrics}
        best = {name: mean >= _SOLVED if weights[name] > 0 else mean <= 1 - _SOLVED for name, mean in means.items()}
        signs = {
            "truncated": metrics["truncated_share"] >= config.truncated_share,
            "zero_variance": metrics["zero_variance_share"] >= config.zero_variance_share and not all(best.values()),
            "kl": metrics["kl"] > config.kl_limit,
        }
        for name, mean in means.items():
            at_best = mean == (1.0 if weights[name] > 0 else 0.0)
            signs[f"constant {name}"] = not at_best and mean == self.components.get(name)
        return self._counted(signs).model_copy(update={"components": {**self.components, **means}})

    def _counted(self, signs: Mapping[str, bool]) -> "Watch":
        counts = {name: self.counts.get(name, 0) + 1 if seen else 0 for name, seen in signs.items()}
        return self.model_copy(update={"counts": {**self.counts, **counts}})

    def metrics(self) -> dict[str, float]:
        """`watch_<sign>`: steps in a row; `watch_constant` is the longest of the components."""
        found: dict[str, float] = {}
        for name, count in self.counts.items():
            key = f"watch_{name.split()[0]}"
            found[key] = max(found.get(key, 0.0), float(count))
        return found

    def longest(self, config: FiniteWatch) -> int:
        """Steps that the longest sign has lasted, of those that can stop the training: before them all was well."""
        return max((count for name, count in self.counts.items() if config.limits[name.split()[0]]), default=0)

    def alarm(self, config: FiniteWatch) -> Alarm | None:
        """The first sign that has lasted as long as it may."""
        for name, count in self.counts.items():
            sign, _, component = name.partition(" ")
            limit = config.limits[sign]
            if limit is not None and count >= limit:
                return Alarm(count, self._words(sign, component, count, config))
        return None

    def _words(self, sign: str, component: str, count: int, config: FiniteWatch) -> str:
        seen = {
            "nonfinite": "the loss, its gradient or what was sampled was not finite",
            "truncated": "nearly all completions were cut at the token limit",
            "zero_variance": "nearly no group had variance, so that next to nothing was learned",
            "kl": "the policy was too far from its reference",
            "constant": f"reward_{component} stayed at exactly {self.components.get(component, 0.0):g}",
        }[sign]
        limit = {
            "truncated": "truncated_share",
            "zero_variance": "zero_variance_share",
            "kl": "kl_limit",
        }.get(sign)
        bound = f" ({limit} is {getattr(config, limit):g})" if limit else ""
        return (
            f"{seen} for {count} steps{bound}: {_REMEDIES[sign]}, which begins the training anew, or set "
            f"watch.{sign}_steps to null to go on as it is"
        )
