"""A dead training is stopped, with the reason, the last good checkpoint and the way on; a living one never."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit import checkpoint, grpo, reward_model, sft
from r1kit.grpo_config import GrpoConfig
from r1kit.resume import Checkpoints
from r1kit.reward_model import RewardModelConfig
from r1kit.rollout import Prompt
from r1kit.rows import PreferencePair, Problem
from r1kit.sampler import Completion, SamplingConfig
from r1kit.sft import Example, SftConfig
from r1kit.watch import Watch, WatchConfig
from tests.r1kit.models import small_model

OFF = {f"{sign}_steps": None for sign in ("nonfinite", "truncated", "zero_variance", "kl", "constant")}
PROMPTS = [
    Prompt(Problem.model_validate({"id": f"p{i}", "source": "t", "licence": "MIT", "prompt": "a", "verifier": "gym"}),
           [5 + i, 6, 7])
    for i in range(6)
]  # fmt: skip
CONFIG = GrpoConfig(
    steps=14, prompts_per_step=4, samples_per_prompt=4, sampling=SamplingConfig(max_tokens=6), learning_rate=1e-3,
    kl_coefficient=0.1, reference_refresh_steps=0, checkpoint_every_steps=2, checkpoint_max_share=1,
)  # fmt: skip

Reward = Callable[[Sequence[Problem], Sequence[Completion]], Sequence[Mapping[str, float]]]


def lively(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[dict[str, float]]:
    """An arbitrary function of the tokens alone, that varies."""
    return [{"accuracy": float(sum(c.token_ids) % 2), "format": 1.0} for c in completions]


def from_step(first: int, then: Mapping[str, float]) -> Reward:
    """Lively, but for these components from a step on."""
    step = 0

    def reward(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[dict[str, float]]:
        nonlocal step
        step += 1
        rows = lively(problems, completions)
        return rows if step < first else [{**row, **then} for row in rows]

    return reward


def train(
    folder: Path, reward: Reward, watch: Mapping[str, Any], log=lambda *_: None, **changes: Any
) -> dict[str, float]:
    model, tokenizer = small_model()
    config = CONFIG.model_copy(update={"watch": WatchConfig.model_validate({**OFF, **watch}), **changes})
    return grpo.train(model, tokenizer, PROMPTS, reward, config, seed=1, checkpoints=folder, log=log)


CASES: dict[str, tuple[Reward, dict[str, Any], dict[str, Any], str, str]] = {
    # sign: reward, watch, other settings, the words, the last good checkpoint
    "truncated": (
        lively, {"truncated_steps": 3, "truncated_share": 0.5}, {},
        "cut at the token limit for 3 steps (truncated_share is 0.5)", "no checkpoint",
    ),
    "zero_variance": (
        from_step(7, {"accuracy": 0.0}), {"zero_variance_steps": 4}, {},
        "nearly no group had variance, so that next to nothing was learned for 4 steps", "step-00000006",
    ),
    "kl": (lively, {"kl_steps": 2, "kl_limit": 0.05}, {"learning_rate": 2e-2, "checkpoint_every_steps": 1},
           "the policy was too far from its reference for 2 steps (kl_limit is 0.05)", "step-0000000"),
    "constant": (
        from_step(6, {"format": 0.0}), {"constant_steps": 5}, {},
        "reward_format stayed at exactly 0 for 5 steps", "step-00000006",
    ),
}  # fmt: skip


@pytest.mark.parametrize("sign", CASES)
def test_each_sign_of_death_stops_the_training(tmp_path: Path, sign: str) -> None:
    reward, watch, changes, words, good = CASES[sign]
    seen: list[Mapping[str, float]] = []
    with pytest.raises(ValueError, match="stopped after step") as caught:
        train(tmp_path, reward, watch, lambda step, total, metrics: seen.append(metrics), **changes)
    told = str(caught.value)
    assert words in told and good in told and f"set watch.{sign}_steps to null" in told and "\n" not in told
    assert f"stopped after step {len(seen)}: " in told and len(seen) < CONFIG.steps
    count = watch[f"{sign}_steps"]
    assert [metrics[f"watch_{sign}"] for metrics in seen[-count:]] == list(range(1, count + 1))


@pytest.mark.parametrize("sign", CASES)
def test_switched_off_it_stops_nothing(tmp_path: Path, sign: str) -> None:
    reward, watch, changes, _, _ = CASES[sign]
    seen: list[Mapping[str, float]] = []
    train(
        tmp_path, reward, {**watch, f"{sign}_steps": None}, lambda step, total, metrics: seen.append(metrics), **changes
    )
    assert len(seen) == CONFIG.steps and max(metrics[f"watch_{sign}"] for metrics in seen) > 0


def test_a_stopped_training_keeps_its_last_good_checkpoint_and_goes_on_when_told(tmp_path: Path) -> None:
    dead = {"accuracy": 0.0}
    with pytest.raises(ValueError, match=r"stopped after step 13: .*the last good checkpoint is .*/step-00000004$"):
        train(tmp_path, from_step(5, dead), {"zero_variance_steps": 9})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000010", "step-00000012"]
    with pytest.raises(ValueError, match="stopped after step 13"):  # the counts are in the checkpoint
        train(tmp_path, from_step(0, dead), {"zero_variance_steps": 9})
    seen: list[int] = []
    train(tmp_path, from_step(0, dead), {}, lambda step, *_: seen.append(step))
    assert seen == [13, 14]


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("kill_after", [3, 7, 9])
def test_a_resumed_training_stops_at_the_same_step(tmp_path: Path, kill_after: int) -> None:
    def die(step: int, total: int, metrics: Mapping[str, float]) -> None:
        if step == kill_after:
            raise Killed

    def wrong(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[dict[str, float]]:
        return [{"accuracy": 0.25, "format": float(sum(c.token_ids) % 2)} for c in completions]

    with pytest.raises(Killed):
        train(tmp_path, wrong, {"constant_steps": 10}, die)
    with pytest.raises(ValueError, match=r"stopped after step 11: reward_accuracy stayed at exactly 0\.25 for 10 st"):
        train(tmp_path, wrong, {"constant_steps": 10})


def test_a_gradient_that_is_not_finite_is_skipped_and_then_stops_the_training(tmp_path: Path) -> None:
    seen: list[Mapping[str, float]] = []
    with pytest.raises(ValueError, match=r"not finite for 2 steps: lower learning_rate.*watch\.nonfinite_steps"):
        train(
            tmp_path, lively, {"nonfinite_steps": 2}, lambda step, total, metrics: seen.append(metrics),
            learning_rate=1e30,
        )  # fmt: skip
    assert [metrics["watch_nonfinite"] for metrics in seen[-3:]] == [0, 1, 2]


EXAMPLES = [Example([5, 6], [7, 8, 3]), Example([5], [9, 3]), Example([6], [10, 3])]


def test_supervised_training_that_is_not_finite_stops(tmp_path: Path) -> None:
    model, _ = small_model()
    config = SftConfig(learning_rate=1e30, batch_size=1, epochs=9, checkpoint_every_steps=1, checkpoint_max_share=1)
    with pytest.raises(ValueError, match=r"not finite for 3 steps.*the last good checkpoint is .*/step-0000000"):
        sft.train(model, EXAMPLES, config, seed=0, checkpoints=tmp_path, log=lambda *_: None)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert all(value.isfinite().all() for name, value in found.tensors.items() if name.startswith("weights."))


def test_a_reward_model_that_is_not_finite_stops(tmp_path: Path) -> None:
    model, tokenizer = small_model()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    pairs = [
        PreferencePair(
            id=str(n), source="t", licence="MIT", prompt="cat", chosen="milk", rejected="dog", route="helpful",
            split="heldout" if n == 0 else "train",
        )
        for n in range(12)
    ]  # fmt: skip
    config = RewardModelConfig(batch_size=1)
    seen: list[Mapping[str, float]] = []
    words = "the loss, its gradient or what was sampled was not finite for 3 steps"
    with pytest.raises(ValueError, match=f"stopped after step 3: {words}"):
        reward_model.train(
            model, tokenizer, pairs, config, kind="helpful", seed=0, checkpoints=tmp_path,
            log=lambda step, total, metrics: seen.append(metrics),
        )  # fmt: skip
    assert [metrics["watch_nonfinite"] for metrics in seen] == [1, 2, 3]


def test_without_an_older_checkpoint_that_is_said(tmp_path: Path) -> None:
    alarm = Watch(counts={"nonfinite": 3}).alarm(WatchConfig())
    assert alarm is not None
    saves = Checkpoints(tmp_path, CONFIG, {})
    with pytest.raises(ValueError, match="no checkpoint is from before that"):
        saves.stop_if_dead(3, alarm)


WEIGHTS = {"accuracy": 1.0, "format": 1.0, "language": 0.0, "preference": 0.5}
HEALTHY = {"truncated_share": 0.1, "zero_variance_share": 0.3, "kl": 0.02, "gradient_norm": 1.0}


def _counted(steps: Sequence[Mapping[str, float]], weights: Mapping[str, float] = WEIGHTS) -> dict[str, float]:
    watch = Watch()
    for metrics in steps:
        watch = watch.after_update(metrics).after_rollout({**HEALTHY, **metrics}, WatchConfig(), weights)
    return watch.metrics()


def test_a_format_that_is_always_right_is_no_sign_and_one_that_is_always_wrong_is() -> None:
    assert _counted([{"reward_format": 1.0}] * 9)["watch_constant"] == 0
    assert _counted([{"reward_format": 0.0}] * 9)["watch_constant"] == 8
    assert _counted([{"reward_format": 0.5}] * 9)["watch_constant"] == 8
    assert _counted([{"reward_format": 0.5}] * 9 + [{"reward_format": 0.6}])["watch_constant"] == 0


def test_a_component_without_a_weight_or_not_there_is_no_sign() -> None:
    assert "watch_constant" not in _counted([{"reward_language": 0.0}] * 9)
    late = [{"reward_accuracy": 0.1 * n} for n in range(4)] + [
        {"reward_accuracy": n, "reward_preference": 0.5} for n in (0.5, 0.6, 0.7)
    ]
    assert _counted(late)["watch_constant"] == 2
    assert _counted([*late, {"reward_accuracy": 0.8}])["watch_constant"] == 2


def test_a_penalty_is_at_its_best_where_it_is_zero() -> None:
    assert _counted([{"reward_format": 0.0}] * 9, {"format": -1.0})["watch_constant"] == 0
    assert _counted([{"reward_format": 1.0}] * 9, {"format": -1.0})["watch_constant"] == 8


def test_groups_without_variance_are_no_sign_where_all_is_right() -> None:
    solved = {"zero_variance_share": 1.0, "reward_accuracy": 1.0, "reward_format": 0.995}
    assert _counted([solved] * 9)["watch_zero_variance"] == 0
    assert _counted([{**solved, "reward_accuracy": 0.5}] * 9)["watch_zero_variance"] == 9


numbers = st.floats(0, 1)
metrics_of_a_step = st.fixed_dictionaries(
    {
        "truncated_share": numbers,
        "zero_variance_share": numbers,
        "kl": st.floats(0, 20),
        "gradient_norm": st.sampled_from([1.0, float("nan")]),
        "reward_accuracy": st.sampled_from([0.0, 0.5, 1.0]),
    }
)


@given(st.lists(metrics_of_a_step, max_size=30), st.integers(0, 30))
def test_counting_goes_on_where_it_was_and_never_exceeds_the_steps(steps: list[dict[str, float]], cut: int) -> None:
    watch = Watch()
    for number, metrics in enumerate(steps):
        if number == cut:
            watch = Watch.model_validate_json(watch.model_dump_json())  # as a checkpoint keeps it
        watch = watch.after_update(metrics).after_rollout(metrics, WatchConfig(), WEIGHTS)
        assert all(0 <= count <= number + 1 for count in watch.counts.values())
    assert watch.metrics() == _counted(steps)


def test_nan_metrics_raise_no_other_alarm() -> None:
    nan = float("nan")
    assert (
        torch.tensor(list(_counted([{"kl": nan, "gradient_norm": nan, "reward_accuracy": nan}] * 4).values())).sum()
        == 4
    )
