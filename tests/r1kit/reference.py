"""The GRPO objective once more, in plain Python and NumPy, token by token, as the papers print it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def advantages_of(rewards: Sequence[float | None], scale: str, epsilon: float, ddof: int) -> list[float]:
    """Of one group; None is a reward that is missing."""
    known = [reward for reward in rewards if reward is not None]
    result = []
    for place, reward in enumerate(rewards):
        if reward is None or len(set(known)) < 2 or math.isclose(reward, np.mean(known), rel_tol=1e-12):
            result.append(0.0)
        elif scale == "std":
            result.append((reward - np.mean(known)) / (np.std(known, ddof=ddof) + epsilon))
        elif scale == "mean":
            result.append(reward - np.mean(known))
        else:
            others = [r for other, r in enumerate(rewards) if other != place and r is not None]
            result.append(reward - np.mean(others))
    return [float(value) for value in result]


def kl_of(name: str, reference: float, policy: float) -> float:
    """Schulman's estimates, from the probabilities' ratio r = reference / policy."""
    ratio = math.exp(reference - policy)
    return {"k1": -math.log(ratio), "k2": 0.5 * math.log(ratio) ** 2, "k3": (ratio - 1) - math.log(ratio)}[name]


def surrogate_of(ratio: float, advantage: float, low: float, high: float, dual: float | None) -> float:
    """What is maximised, of one token or sequence."""
    value = min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
    return max(value, dual * advantage) if dual is not None and advantage < 0 else value


class Reference:
    """A case (see parity.py) and its objective."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case, self.config = case, case["config"]
        config = self.config
        self.advantages = [
            value
            for group in case["rewards"]
            for value in advantages_of(
                group, config["advantage"], config["advantage_epsilon"], config["advantage_ddof"]
            )
        ]
        self.lengths: list[int] = case["lengths"]
        self.num_rows = len(self.lengths) // config["minibatches"]
        self.counted = [r for r in range(self.num_rows) if self._counts(r)]

    def _counts(self, row: int) -> bool:
        return self.config["overlong"] != "mask" or self.lengths[row] < self.config["sampling"]["max_tokens"]

    def loss(self, logprobs: np.ndarray) -> float:
        """Of the first optimizer step, given the policy's [R, T] log-probabilities."""
        rows = {row: self._row(row, logprobs[row, : self.lengths[row]]) for row in self.counted}
        if not rows:
            return 0.0
        match self.config["loss"]:
            case "r1" | "grpo" | "gspo":
                return float(np.mean([np.mean(tokens) for tokens in rows.values()]))
            case "dr_grpo":
                limit = self.config["sampling"]["max_tokens"]
                return float(np.mean([np.sum(tokens) / limit for tokens in rows.values()]))
            case "bnpo":
                return float(np.mean(np.concatenate(list(rows.values()))))
        assert self.config["loss"] == "dapo"
        tokens = sum(length for row, length in enumerate(self.lengths) if self._counts(row))
        return float(sum(np.sum(tokens) for tokens in rows.values()) / (tokens / self.config["minibatches"]))

    def _row(self, row: int, logprobs: np.ndarray) -> np.ndarray:
        """A loss for each token of the row."""
        config, case = self.config, self.case
        advantage, length = self.advantages[row], self.lengths[row]
        size = len(case["rewards"][0])
        group = self.advantages[row // size * size :][:size]
        if not any(group) or (advantage == 0 and config["kl_rows"] == "with_advantage"):
            return np.zeros(length)
        old, sampled = np.array(case["old"][row][:length]), np.array(case["rows"][row]["sampled"])
        ratios = np.exp(logprobs - old)
        if config["loss"] == "gspo":
            ratios = np.full(length, np.prod(ratios) ** (1 / length))
        weights = np.exp(old - sampled)
        match config["sampler_correction"]:
            case "none":
                weights = np.ones(length)
            case "sequence":
                weights = np.full(length, np.prod(weights))
        losses = []
        for t in range(length):
            gain = surrogate_of(ratios[t], advantage, config["clip_low"], config["clip_high"], config["clip_dual"])
            loss = -gain * min(weights[t], config["sampler_correction_cap"])
            if config["kl_coefficient"]:
                kl = kl_of(config["kl_estimator"], case["anchor"][row][t], logprobs[t])
                loss += config["kl_coefficient"] * kl * (ratios[t] if config["kl_importance"] else 1)
            losses.append(loss)
        return np.array(losses)

    def gradient(self, logprobs: np.ndarray, step: float = 1e-6) -> np.ndarray:
        """Central differences, [R, T]."""
        result = np.zeros_like(logprobs)
        for place in np.ndindex(logprobs.shape):
            moved = np.zeros_like(logprobs)
            moved[place] = step
            result[place] = (self.loss(logprobs + moved) - self.loss(logprobs - moved)) / (2 * step)
        return result
