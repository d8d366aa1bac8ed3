"""Laws of GRPO: what does and what does not move the policy, and that a killed training ends in the same bits."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

from r1kit import grpo
from r1kit.engine import Engine
from r1kit.grpo import GrpoConfig, Prompt, RewardWeights, Rollout
from r1kit.rows import Problem
from r1kit.sampler import Completion, SamplingConfig
from tests.r1kit.models import small_model


class Killed(Exception):
    """Stands for SIGKILL."""


def _problem(name: str, verifier: str = "gym") -> Problem:
    return Problem.model_validate({"id": name, "source": "t", "licence": "MIT", "prompt": name, "verifier": verifier})


PROMPTS = [Prompt(_problem(f"p{i}"), [5 + i, 6, 7][: 2 + i % 2]) for i in range(6)]
GENERAL = [Prompt(_problem(f"g{i}", "none"), [40 + i, 7]) for i in range(4)]
CONFIG = GrpoConfig(
    steps=6, prompts_per_step=4, samples_per_prompt=4, sampling=SamplingConfig(max_tokens=8), learning_rate=1e-2,
    kl_coefficient=0.1, reference_refresh_steps=3, micro_batch_tokens=64, checkpoint_every_steps=1,
)  # fmt: skip


def _reward(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Mapping[str, float]]:
    """An arbitrary function of the tokens alone."""
    return [{"accuracy": float(sum(c.token_ids) % 2), "format": float(len(c.token_ids) > 4)} for c in completions]


def _digest(model: torch.nn.Module) -> list[bytes]:
    return [parameter.detach().numpy().tobytes() for parameter in model.parameters()]


def _train(path: Path, config: GrpoConfig = CONFIG, reward=_reward, log=lambda *_: None, general=()) -> list[bytes]:
    model, tokenizer = small_model()
    grpo.train(model, tokenizer, PROMPTS, reward, config, seed=1, checkpoints=path, log=log, general_prompts=general)
    return _digest(model)


@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize("kill_after", [1, 3, 5])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, kill_after: int, minibatches: int) -> None:
    config = CONFIG.model_copy(update={"minibatches": minibatches, "checkpoint_every_steps": 2})

    def die(step: int, total: int, metrics: Mapping[str, float]) -> None:
        if step == kill_after:
            raise Killed

    with pytest.raises(Killed):
        _train(tmp_path / "killed", config, log=die)
    assert _train(tmp_path / "killed", config) == _train(tmp_path / "whole", config)


def _rollout(rewards: list[list[float]]) -> Rollout:
    completions = [
        Completion(tuple(range(10 + row, 13 + row % 3 + row)), "", (), True) for row in range(sum(map(len, rewards)))
    ]
    return Rollout(PROMPTS[: len(rewards)], completions, [{} for _ in completions], torch.tensor(rewards).double())


def _gradient(rollout: Rollout, config: GrpoConfig) -> torch.Tensor:
    """The gradient of one step, read off plain gradient accumulation."""
    model, _ = small_model()
    reference, _ = small_model(seed=9)
    captured: list[torch.Tensor] = []

    class Probe(Engine):
        def step(self, learning_rate: float) -> float:
            parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.model.parameters()]
            captured.append(torch.cat([part.flatten() for part in parts]))
            return 0.0

    grpo.update(Probe(model, config), reference, rollout, config, 0.0, seed=0, step=0)
    return captured[0]


MIXED = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.5, 2.0, 0.0]]


def test_groups_without_variance_change_nothing_not_even_through_kl() -> None:
    assert _gradient(_rollout([[1.0] * 4, [0.0] * 4]), CONFIG).abs().max() == 0


@pytest.mark.parametrize("loss", ["r1", "grpo", "dr_grpo", "dapo", "bnpo"])
def test_micro_batches_do_not_change_the_gradient(loss: str) -> None:
    config = CONFIG.model_copy(update={"loss": loss})
    whole = _gradient(_rollout(MIXED), config.model_copy(update={"micro_batch_tokens": 10_000}))
    split = _gradient(_rollout(MIXED), config.model_copy(update={"micro_batch_tokens": 1}))
    assert whole.abs().max() > 0
    assert torch.allclose(whole, split, atol=1e-6)


def test_better_samples_become_likelier(tmp_path: Path) -> None:
    seen: list[float] = []

    def favour_low(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Mapping[str, float]]:
        return [{"accuracy": float(c.token_ids[0] < 100)} for c in completions]

    config = CONFIG.model_copy(update={"steps": 40, "kl_coefficient": 0.0, "samples_per_prompt": 16})
    config = config.model_copy(update={"sampling": SamplingConfig(max_tokens=1), "checkpoint_every_steps": 100})
    _train(tmp_path, config, favour_low, lambda step, total, metrics: seen.append(metrics["reward_accuracy"]))
    assert sum(seen[:4]) / 4 < 0.4 and sum(seen[-4:]) / 4 > 0.8


def test_general_prompts_come_only_in_the_last_steps(tmp_path: Path) -> None:
    kinds: list[set[str]] = []

    def watch(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Mapping[str, float]]:
        kinds.append({problem.verifier for problem in problems})
        return _reward(problems, completions)

    config = CONFIG.model_copy(update={"preference_last_steps": 2, "general_share": 0.5})
    _train(tmp_path, config, watch, general=GENERAL)
    assert kinds == [{"gym"}] * 4 + [{"gym", "none"}] * 2


def test_weights_of_components_make_the_reward(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"rewards": RewardWeights(accuracy=2.0, format=0.5), "steps": 1})
    seen: list[Mapping[str, float]] = []
    _train(tmp_path, config, log=lambda step, total, metrics: seen.append(metrics))
    expected = 2 * seen[0]["reward_accuracy"] + 0.5 * seen[0]["reward_format"]
    assert seen[0]["reward"] == pytest.approx(expected)


def test_a_training_that_is_not_finite_stops_and_says_so(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"learning_rate": 1e30, "steps": 30, "warmup_steps": 0, "max_bad_steps": 2})
    with pytest.raises(ValueError, match="2 steps in a row were not finite"):
        _train(tmp_path, config)
