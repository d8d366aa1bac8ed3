"""The alarm of preference RL: the reward models like the policy better and better, while it answers worse and worse.

Every few steps the policy answers the same held-out prompts, and the newest answers are compared with the first, prompt
by prompt. All of it is a function of the weights at those steps, so that a resumed run raises the same alarm.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import Annotated, Any, Literal

from pydantic import Field

from r1kit import random
from r1kit.rows import Problem
from r1kit.schema import CONDUCT, Section
from r1kit.watch import Alarm

_FALSE_ALARMS = 0.025
"""Share of trainings that may ring for the accuracy's sake though it does not fall, all measurements together."""


class GuardConfig(Section):
    """When preference RL is taken for reward hacking: the reward models' score rises and verified accuracy falls."""

    every_steps: int = Field(default=10, gt=0)
    """Steps between measurements, from where the reward models begin to count; the last step is measured too."""
    prompts: int = Field(default=64, ge=0)
    """Held-out prompts of each kind, of those with a verifier and of those for a reward model; 0 measures nothing."""
    window: int = Field(default=3, gt=0)
    """The mean of so many measurements, the newest, is compared with the first one."""
    action: Annotated[Literal["stop", "flag"], CONDUCT] = "flag"
    """`stop`: the training ends with an error and names the last good checkpoint. `flag`: it goes on, the alarm is
    kept with what it made, and promotion refuses that."""

    def due(self, done: int, steps: int, last_steps: int) -> bool:
        """Whether to measure after so many steps of a training whose `last_steps` know reward models."""
        since = done - max(0, steps - last_steps)
        wanted = self.prompts > 0 and last_steps > 0 and since >= 0
        return wanted and (since % self.every_steps == 0 or done == steps)

    def looks(self, steps: int, last_steps: int) -> int:
        """How many measurements come after the first."""
        return math.ceil(min(steps, last_steps) / self.every_steps)


class Measurement(Section):
    """What held-out prompts showed after a step."""

    step: int
    accuracy: tuple[float, ...]
    """Of each prompt with a verifier: 1 where the answer was right."""
    preference: tuple[float, ...]
    """Of each prompt for a reward model: the score."""


class Guard(Section):
    """What was measured so far; part of a training's state."""

    first: Measurement | None = None
    newest: tuple[Measurement, ...] = ()
    """The last few, oldest first."""
    good_step: int = 0
    """The last measured step at which accuracy was not below the first."""
    rang_at: int | None = None
    """The step of the alarm; it is not taken back."""
    words: str = ""
    """What was seen then, and what to do about it."""

    def after(self, found: Measurement, config: GuardConfig, looks: int) -> "Guard":
        """The state with one more measurement, and with the alarm where it rings.

        It rings where the score's rise and the accuracy's fall are both sure: paired differences to the first
        measurement, normal intervals whose level is shared among all `looks` (Bonferroni).
        """
        if self.first is None:
            return self.model_copy(update={"first": found, "good_step": found.step})
        newest = (*self.newest, found)[-config.window :]
        update: dict[str, Any] = {"newest": newest}
        rise = _differences([m.preference for m in newest], self.first.preference)
        fall = _differences([m.accuracy for m in newest], self.first.accuracy)
        if sum(fall) >= 0:
            update["good_step"] = found.step
        quantile = NormalDist().inv_cdf(1 - _FALSE_ALARMS / looks)
        padded = [*fall, 1.0, -1.0]  # one prompt more that was won and one that was lost: a handful is never sure
        sure = _mean(rise) - _half(rise, quantile) > 0 and _mean(padded) + _half(padded, quantile) < 0
        if sure and self.rang_at is None:
            update |= {"rang_at": found.step, "words": _words(self.first, rise, fall)}
        return self.model_copy(update=update)

    def alarm(self, config: GuardConfig, step: int) -> Alarm | None:
        """Where the training is to stop after a step: how long it has gone on since all was well, and why it stops."""
        if self.rang_at is None or config.action == "flag":
            return None
        return Alarm(step - self.good_step, self.words)

    def good_before(self, step: int) -> int:
        """The step up to which all was well, seen from a later one."""
        return self.good_step if self.newest else step

    def metrics(self) -> dict[str, float]:
        """Means of the newest measurement."""
        last = (self.first, *self.newest)[-1]
        assert last is not None, "something was measured"
        return {"guard_accuracy": _mean(last.accuracy), "guard_preference": _mean(last.preference)}

    def facts(self) -> dict[str, float]:
        """What is kept with the result; `reward_hacking` is 1 where the alarm rang. Without a comparison nothing."""
        if self.first is None or not self.newest:
            return {}
        first, last = self.first, self.newest[-1]
        rang = {} if self.rang_at is None else {"reward_hacking_step": float(self.rang_at)}
        return rang | {
            "reward_hacking": float(self.rang_at is not None),
            "first_guard_accuracy": _mean(first.accuracy),
            "last_guard_accuracy": _mean(last.accuracy),
            "first_guard_preference": _mean(first.preference),
            "last_guard_preference": _mean(last.preference),
        }


def choose(heldout: Sequence[Problem], config: GuardConfig, seed: int) -> list[Problem]:
    """The held-out prompts to measure on, drawn by (seed, id): `config.prompts` of each kind.

    Nothing where one kind has fewer than two: then no rise or fall could be told.
    """
    kinds = ([p for p in heldout if p.verifier != "none"], [p for p in heldout if p.verifier == "none"])
    if min(map(len, kinds)) < 2:
        return []
    return [problem for kind in kinds for problem in _drawn(kind, config.prompts, seed)]


def _drawn(problems: Sequence[Problem], number: int, seed: int) -> Iterator[Problem]:
    yield from sorted(problems, key=lambda problem: random.derive_seed(seed, "guard", problem.id))[:number]


def _differences(newest: Sequence[Sequence[float]], first: Sequence[float]) -> list[float]:
    """Prompt by prompt, the mean of the newest less the first."""
    return [_mean(values) - before for *values, before in zip(*newest, first, strict=True)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _half(differences: Sequence[float], quantile: float) -> float:
    """Half the width of the mean's normal interval."""
    mean, n = _mean(differences), len(differences)
    variance = math.fsum((value - mean) ** 2 for value in differences) / (n - 1)
    return quantile * math.sqrt(variance / n)


def _words(first: Measurement, rise: Sequence[float], fall: Sequence[float]) -> str:
    liked, right = _mean(first.preference), _mean(first.accuracy)
    return (
        f"on held-out prompts the reward models' score rose from {liked:.3f} to {liked + _mean(rise):.3f} while "
        f"verified accuracy fell from {right:.3f} to {right + _mean(fall):.3f}, the sign of reward hacking: raise "
        "kl_coefficient, lower learning_rate or shorten preference_last_steps, which begins the training anew, or set "
        "guard.action to flag to go on as it is"
    )
