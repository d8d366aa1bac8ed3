"""Laws of GRPO: what does and what does not move the policy, and that a killed training ends in the same bits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit import grpo
from r1kit.engine import Engine
from r1kit.grpo_config import GrpoConfig, RewardWeights
from r1kit.rollout import Prompt, Rollout, roll_out
from r1kit.rows import Problem
from r1kit.sampler import Completion, SamplingConfig
from r1kit.update import METRICS, accumulate, update
from r1kit.watch import WatchConfig
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
    checkpoint_max_share=1,
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

    update(Probe(model, config), reference, rollout, config, 0.0, seed=0, step=0)
    return captured[0]


MIXED = [[1.0, 0.0, 0.0, 1.0], [0.0, 0.5, 2.0, 0.0]]
FLAT = [[1.0] * 4, [0.0] * 4]
LOSSES = ["r1", "grpo", "dr_grpo", "dapo", "bnpo", "gspo"]
losses = st.sampled_from(LOSSES)
values = st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0]), min_size=4, max_size=4), min_size=2, max_size=3)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("advantage", ["std", "mean", "leave_one_out"])
@pytest.mark.parametrize("kl_rows", ["with_advantage", "with_variance"])
def test_groups_without_variance_change_nothing_not_even_through_kl(loss: str, advantage: str, kl_rows: str) -> None:
    config = CONFIG.model_copy(
        update={"loss": loss, "advantage": advantage, "advantage_epsilon": 0.0, "kl_rows": kl_rows}
    )
    assert _gradient(_rollout([*FLAT, [0.1] * 4]), config).abs().max() == 0
    others = [[0.5] * 4, [2.0] * 4]
    assert torch.equal(_gradient(_rollout(MIXED + FLAT), config), _gradient(_rollout(MIXED + others), config))


@settings(deadline=None, max_examples=20)
@given(values, losses, st.sampled_from([1, 30, 64]))
def test_micro_batches_do_not_change_the_gradient(rewards: list[list[float]], loss: str, micro: int) -> None:
    config = CONFIG.model_copy(update={"loss": loss})
    whole = _gradient(_rollout(rewards), config.model_copy(update={"micro_batch_tokens": 10_000}))
    split = _gradient(_rollout(rewards), config.model_copy(update={"micro_batch_tokens": micro}))
    assert (whole.abs().max() > 0) == any(len(set(group)) > 1 for group in rewards)
    assert torch.allclose(whole, split, atol=1e-6)


@settings(deadline=None, max_examples=20)
@given(values, losses, st.randoms(use_true_random=False))
def test_the_order_of_groups_and_rows_does_not_change_the_gradient(rewards: list[list[float]], loss: str, rng) -> None:
    config, rollout = CONFIG.model_copy(update={"loss": loss}), _rollout(rewards)
    groups = rng.sample(range(len(rewards)), len(rewards))
    rows = [[4 * group + sample for sample in rng.sample(range(4), 4)] for group in groups]
    shuffled = Rollout(
        [rollout.prompts[group] for group in groups],
        [rollout.completions[row] for group in rows for row in group],
        rollout.components,
        torch.stack([rollout.rewards.flatten()[group] for group in rows]),
    )
    assert torch.allclose(_gradient(rollout, config), _gradient(shuffled, config), atol=1e-6)


def test_only_tokens_that_predict_the_completion_get_a_gradient() -> None:
    model, _ = small_model()
    reference, _ = small_model(seed=9)
    caught: list[torch.Tensor] = []

    def catch(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        output.retain_grad()
        caught.append(output)

    model.model.norm.register_forward_hook(catch)
    rollout = _rollout(MIXED[1:])
    config = CONFIG.model_copy(update={"micro_batch_tokens": 1})
    sums: dict[str, float] = dict.fromkeys(METRICS, 0.0)
    advantages = torch.tensor([-0.7, -0.1, 1.5, -0.7])
    accumulate(Engine(model, config), reference, rollout, range(4), advantages, None, config, sums)
    lengths = sorted(len(completion.token_ids) for completion in rollout.completions)
    assert len(caught) == len(lengths)
    for hidden, length in zip(caught, lengths, strict=True):  # [1, prompt + completion, width]
        assert hidden.grad is not None
        touched = (hidden.grad[0].abs().amax(1) > 0).tolist()
        prompt = len(rollout.prompt_of(0))
        assert touched == [False] * (prompt - 1) + [True] * length  # the last token predicts nothing


def _unfinished(rollout: Rollout, rows: Sequence[int]) -> Rollout:
    completions = [replace(c, finished=row not in rows) for row, c in enumerate(rollout.completions)]
    return replace(rollout, completions=completions)


@pytest.mark.parametrize("loss", LOSSES)
def test_masked_overlong_completions_have_no_part_in_the_loss(loss: str) -> None:
    config = CONFIG.model_copy(update={"loss": loss, "overlong": "mask"})
    rollout = _unfinished(_rollout(MIXED), [2, 5])
    other = replace(rollout.completions[2], token_ids=(99, 98, 97, 96))
    changed = replace(rollout, completions=[*rollout.completions[:2], other, *rollout.completions[3:]])
    gradient = _gradient(rollout, config)
    assert gradient.abs().max() > 0 and torch.equal(gradient, _gradient(changed, config))
    kept = _gradient(rollout, config.model_copy(update={"overlong": "keep"}))
    assert not torch.allclose(gradient, kept, atol=1e-4)
    assert _gradient(_unfinished(_rollout(MIXED), range(8)), config).abs().max() == 0


def test_the_soft_penalty_lowers_the_reward_of_long_completions(tmp_path: Path) -> None:
    changes = {"overlong": "soft_penalty", "overlong_buffer_tokens": 4, "overlong_penalty": 0.5, "steps": 1}
    model, tokenizer = small_model()
    rollouts = [
        roll_out(model, tokenizer, PROMPTS, _reward, CONFIG.model_copy(update=update), seed=1, step=0)
        for update in ({}, changes)
    ]
    lengths = torch.tensor([len(c.token_ids) for c in rollouts[0].completions]).view(rollouts[0].rewards.shape)
    expected = 0.5 * ((4.0 - lengths) / 4).clamp(-1, 0)  # the limit is 8
    assert len(set(lengths.flatten().tolist())) > 1
    assert torch.allclose(rollouts[1].rewards - rollouts[0].rewards, expected.double())
    seen: list[Mapping[str, float]] = []
    _train(tmp_path, CONFIG.model_copy(update=changes), log=lambda step, total, metrics: seen.append(metrics))
    plain = seen[0]["reward_accuracy"] + seen[0]["reward_format"]
    assert seen[0]["reward"] == pytest.approx(plain + seen[0]["reward_length"]) and seen[0]["reward_length"] < 0


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_a_sampler_that_agrees_with_the_trainer_needs_no_correction(level: str) -> None:
    model, tokenizer = small_model()
    rollout = roll_out(model, tokenizer, PROMPTS[:2], _reward, CONFIG, seed=1, step=0)
    rollout = replace(rollout, rewards=torch.tensor(MIXED).double())
    config = CONFIG.model_copy(update={"sampler_correction": level})
    corrected, plain = _gradient(rollout, config), _gradient(rollout, CONFIG)
    assert torch.allclose(corrected, plain, atol=1e-4)
    off = [replace(c, logprobs=tuple(value - 0.5 for value in c.logprobs)) for c in rollout.completions]
    assert not torch.allclose(_gradient(replace(rollout, completions=off), config), plain, atol=1e-3)


def test_the_distance_between_sampler_and_trainer_is_measured(tmp_path: Path) -> None:
    seen: list[Mapping[str, float]] = []
    sampling = SamplingConfig(max_tokens=8, temperature=0.6)
    config = CONFIG.model_copy(update={"sampling": sampling, "minibatches": 2})
    _train(tmp_path, config, log=lambda step, total, metrics: seen.append(metrics))
    assert all(0 < metrics["sampler_gap"] < 1e-4 for metrics in seen)


@pytest.mark.parametrize(
    ("choice", "complaint"),
    [
        ({"sampling": {"temperature": 0.0}}, "sampling.temperature is 0"),
        ({"sampling": {"top_p": 0.9}}, "sampling.top_p is 0.9, .* set it to 1"),
        ({"prompts_per_step": 2, "samples_per_prompt": 2, "minibatches": 5}, "minibatches is 5, .* 4 completions"),
        ({"kl_estimator": "k1"}, "kl_estimator is k1, .* kl_importance"),
        ({"overlong": "soft_penalty"}, "overlong_buffer_tokens is 0, .* 32767"),
        ({"overlong": "soft_penalty", "overlong_buffer_tokens": 32768}, "overlong_buffer_tokens is 32768, .* 32767"),
        ({"overlong_buffer_tokens": 5}, "overlong_buffer_tokens is 5, but overlong is keep"),
        ({"clip_dual": 1.0}, "clip_dual"),
        ({"sampler_correction_cap": 0.5}, "sampler_correction_cap"),
        ({"advantage_ddof": 2}, "advantage_ddof"),
    ],
)
def test_choices_that_contradict_one_another_are_refused(choice: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        GrpoConfig.model_validate(choice)


def test_k1_is_fine_where_it_pulls_or_is_not_in_the_loss() -> None:
    assert GrpoConfig(kl_estimator="k1", kl_importance=True).kl_estimator == "k1"
    assert GrpoConfig(kl_estimator="k1", kl_coefficient=0.0).kl_estimator == "k1"


def test_better_samples_become_likelier(tmp_path: Path) -> None:
    seen: list[float] = []

    def favour_low(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Mapping[str, float]]:
        return [{"accuracy": float(c.token_ids[0] < 100)} for c in completions]

    config = CONFIG.model_copy(update={"steps": 40, "kl_coefficient": 0.0, "samples_per_prompt": 16})
    one_token = {"sampling": SamplingConfig(max_tokens=1), "watch": WatchConfig(truncated_steps=None)}
    config = config.model_copy(update=one_token)
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
    config = CONFIG.model_copy(update={"learning_rate": 1e30, "steps": 30, "watch": WatchConfig(nonfinite_steps=2)})
    with pytest.raises(ValueError, match="not finite for 2 steps: lower learning_rate"):
        _train(tmp_path, config)
