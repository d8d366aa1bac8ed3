"""Cases that r1kit and TRL both answer: advantages, loss, gradient. Also what benchmarks/parity.py puts to TRL."""

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers import PreTrainedModel

from r1kit.engine import Engine
from r1kit.grpo_config import GrpoConfig
from r1kit.loss import group_advantages
from r1kit.rollout import Prompt, Rollout
from r1kit.rows import Problem
from r1kit.sampler import Completion
from r1kit.update import METRICS, accumulate, behaviour_logprobs
from tests.r1kit.models import small_model

GOLDEN = Path(__file__).parent / "golden" / "trl.json"
"""Cases, TRL's answers, and the version that gave them."""

_MAX_TOKENS = 8
_END = 3
_CLIPS = {"clip_low": 0.2, "clip_high": 0.28}
_LOSSES = ("r1", "grpo", "dr_grpo", "dapo", "bnpo", "gspo")
_TOKEN_CHOICES: dict[str, dict[str, Any]] = {
    **{loss: {"loss": loss, "kl_coefficient": 0.0} for loss in _LOSSES},
    **{f"{loss} with KL": {"loss": loss, "kl_coefficient": 0.3} for loss in _LOSSES},
    "the preset's clip": {"clip_high": 10.0},
    "dual clip": {"clip_dual": 1.3},
    "advantages only centred": {"advantage": "mean", "loss": "dr_grpo"},
    "a reward is missing": {"loss": "dapo"},
    "a reward at its group's mean": {"kl_rows": "with_variance", "kl_coefficient": 0.3},
    "KL with importance": {"kl_importance": True, "kl_coefficient": 0.3},
    "KL with importance of sequences": {"loss": "gspo", "kl_importance": True, "kl_coefficient": 0.3},
    "sampler's weights": {"sampler_correction": "token", "sampler_correction_cap": 1.2},
    "sampler's weights and KL": {"sampler_correction": "token", "kl_coefficient": 0.3, "loss": "dapo"},
    "sampler's weights of sequences": {"sampler_correction": "sequence", "sampler_correction_cap": 1.2},
    "gspo with sampler's weights": {"loss": "gspo", "sampler_correction": "token"},
    "overlong masked, dapo": {"overlong": "mask", "loss": "dapo"},
    "overlong masked, bnpo": {"overlong": "mask", "loss": "bnpo"},
    **{f"half of a rollout, {loss}": {"loss": loss, "minibatches": 2} for loss in _LOSSES},
}
_MODEL_CHOICES: dict[str, dict[str, Any]] = {
    **{f"{loss} of a model": {"loss": loss, "kl_coefficient": 0.3} for loss in _LOSSES},
    "a model, cooler": {"sampling": {"temperature": 0.7}, "kl_coefficient": 0.3},
    "a model, warmer": {"sampling": {"temperature": 1.6}, "loss": "dapo"},
    "a model, sampler's weights": {"sampler_correction": "token", "kl_coefficient": 0.3},
}


def make_case(choice: dict[str, Any], seed: int) -> dict[str, Any]:
    """A random batch for any choice, also one that TRL lacks; every other seed has rewards that are often equal."""
    return _case("tokens", "", choice, seed)


def make_cases() -> list[dict[str, Any]]:
    """Random batches from fixed seeds, one for each choice."""
    tokens = [_case("tokens", name, choice, seed) for seed, (name, choice) in enumerate(_TOKEN_CHOICES.items())]
    whole = [_case("model", name, choice, 100 + seed) for seed, (name, choice) in enumerate(_MODEL_CHOICES.items())]
    return tokens + whole


def _case(kind: str, name: str, choice: dict[str, Any], seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    sampling = {"max_tokens": _MAX_TOKENS, **choice.get("sampling", {})}
    config = GrpoConfig.model_validate({"kl_coefficient": 0.0, **_CLIPS, **choice, "sampling": sampling})
    rewards: list[list[float | None]] = [[round(rng.gauss(0, 1), 3) for _ in range(4)] for _ in range(2)]
    if name == "a reward is missing":
        rewards[0][2] = None
    elif name == "a reward at its group's mean":
        rewards = [[1.0, 0.0, 0.5, 0.5], [0.1, 0.2, 0.3, 0.2]]
    elif not name and seed % 2:
        rewards = [[rng.choice([0.0, 0.1, 0.2, 0.3]) for _ in group] for group in rewards]
    lengths = [rng.randint(2, _MAX_TOKENS - 1) for _ in range(7)] + [_MAX_TOKENS]  # TRL pads to the longest
    rng.shuffle(lengths)
    old = _noisy([[-3.0] * _MAX_TOKENS for _ in lengths], 1.0, rng)
    sampled = _noisy(old, 0.3, rng)
    rows = []
    for row, length in enumerate(lengths):
        prompt = [5 + row // 4, 6, 7, 8][: 2 + row // 4]
        finished = length < _MAX_TOKENS
        body = [20 + row, *(rng.randint(30, 200) for _ in range(length - finished - 1))]  # no two rows are alike
        rows.append({"prompt": prompt, "completion": body + [_END] * finished, "sampled": sampled[row][:length]})
    case = {
        "kind": kind, "name": name, "config": config.model_dump(mode="json"), "rewards": rewards, "lengths": lengths,
        "rows": rows,
    }  # fmt: skip
    if kind == "tokens":
        case |= {"old": old, "logprobs": _noisy(old, 0.4, rng), "anchor": _noisy(old, 0.4, rng)}
    return case


def _noisy(table: list[list[float]], size: float, rng: random.Random) -> list[list[float]]:
    return [[round(value + rng.gauss(0, size), 4) for value in row] for row in table]


@cache
def models() -> dict[str, PreTrainedModel]:
    """Weights that sampled, weights now (a step away), reference; functions of their seeds."""
    old, policy, reference, other = (small_model(seed)[0] for seed in (0, 0, 9, 7))
    with torch.no_grad():
        for mine, theirs in zip(policy.parameters(), other.parameters(), strict=True):
            mine.lerp_(theirs, 0.1)
    return {"old": old, "policy": policy, "reference": reference}


def rollout_of(case: dict[str, Any]) -> Rollout:
    """The case as a rollout."""
    problem = Problem(id="p", source="t", licence="MIT", prompt="p", verifier="gym")
    size = len(case["rewards"][0])
    completions = [
        Completion(tuple(row["completion"]), "", tuple(row["sampled"]), row["completion"][-1] == _END)
        for row in case["rows"]
    ]
    rewards = [[float("nan") if reward is None else reward for reward in group] for group in case["rewards"]]
    prompts = [Prompt(problem, row["prompt"]) for row in case["rows"][::size]]
    return Rollout(prompts, completions, [{}] * len(completions), torch.tensor(rewards, dtype=torch.float64))


def our_answer(case: dict[str, Any]) -> dict[str, Any]:
    """What r1kit's own training step makes of the case: advantages, loss, gradient, of the first optimizer step."""
    config, rollout = GrpoConfig.model_validate(case["config"]), rollout_of(case)
    advantages = group_advantages(rollout.rewards, config.advantage, config.advantage_epsilon, config.advantage_ddof)
    advantages = advantages.flatten().float()
    rows = range(len(advantages) // config.minibatches)
    answer = _tokens_answer if case["kind"] == "tokens" else _model_answer
    loss, gradient = answer(case, config, rollout, rows, advantages)
    return {"loss": loss, "advantages": advantages[rows].tolist(), "gradient": gradient}


def _tokens_answer(
    case: dict[str, Any], config: GrpoConfig, rollout: Rollout, rows: Sequence[int], advantages: Tensor
) -> tuple[float, list[list[float]]]:
    """The training step with the case's log-probabilities in the place of a model's."""
    place = {completion.token_ids: row for row, completion in enumerate(rollout.completions)}
    leaf = torch.tensor(case["logprobs"], requires_grad=True)
    tables = {"policy": leaf, "reference": torch.tensor(case["anchor"])}

    def from_the_case(model: str, prompts: object, responses: Sequence[Sequence[int]], *_: float):
        chosen, lengths = [place[tuple(response)] for response in responses], [len(r) for r in responses]
        mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
        logprobs = torch.where(mask, tables[model][chosen, : max(lengths)], 0.0)
        return logprobs, mask, torch.zeros(mask.shape)

    behaviour = {row: torch.tensor(case["old"][row][: len(c.token_ids)]) for row, c in enumerate(rollout.completions)}
    sums: dict[str, float] = dict.fromkeys(METRICS, 0.0)
    reference: Any = "reference" if config.kl_coefficient else None
    with mock.patch("r1kit.update.response_logprobs", from_the_case):
        engine: Any = SimpleNamespace(model="policy", backward=lambda loss: loss.backward())
        loss = accumulate(engine, reference, rollout, rows, advantages, behaviour, config, sums)
    # A minibatch whose rows all have no advantage is not back-propagated at all: its gradient is zero.
    return loss, (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).tolist()


def _model_answer(
    case: dict[str, Any], config: GrpoConfig, rollout: Rollout, rows: Sequence[int], advantages: Tensor
) -> tuple[float, dict[str, Any]]:
    """The training step of a model, off-policy: other weights sampled than those that learn."""
    behaviour = behaviour_logprobs(models()["old"], rollout, config)
    policy, reference = models()["policy"], models()["reference"] if config.kl_coefficient else None
    policy.zero_grad()
    sums: dict[str, float] = dict.fromkeys(METRICS, 0.0)
    loss = accumulate(Engine(policy, config), reference, rollout, rows, advantages, behaviour, config, sums)
    return loss, {name: p.grad.tolist() for name, p in policy.named_parameters() if p.grad is not None}


def worst_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Largest absolute difference of advantages, loss and gradient."""
    return {
        "advantages": _largest(ours["advantages"], theirs["advantages"]),
        "loss": abs(ours["loss"] - theirs["loss"]),
        "gradient": (
            max(_largest(ours["gradient"][name], theirs["gradient"][name]) for name in theirs["gradient"])
            if isinstance(theirs["gradient"], dict)
            else _largest(ours["gradient"], theirs["gradient"])
        ),
    }


def _largest(ours: Any, theirs: Any) -> float:
    first, second = torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
    assert first.shape == second.shape
    return float((first - second).abs().max())


def summary(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer short enough to keep: of a model's gradient, for each weight its length and its part along one line."""
    gradient = answer["gradient"]
    if isinstance(gradient, dict):
        gradient = {name: _length_and_projection(values) for name, values in gradient.items()}
    return json.loads(
        json.dumps({**answer, "gradient": gradient}), parse_float=lambda text: float(f"{float(text):.9g}")
    )


def _length_and_projection(values: Any) -> list[float]:
    flat = torch.tensor(values, dtype=torch.float64).flatten()
    direction = torch.arange(len(flat), dtype=torch.float64).sin()
    return [float(flat.norm()), float(flat @ direction / direction.norm().clamp(min=1))]


def read_golden() -> dict[str, Any]:
    """Cases and TRL's answers."""
    return json.loads(GOLDEN.read_text())
