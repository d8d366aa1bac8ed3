"""The alarm of preference RL rings where a policy games its reward model, never where it learns, and at the same step
however often the training is killed."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from r1kit import grpo, tinyworld
from r1kit.grpo_config import GrpoConfig, RewardWeights
from r1kit.guard import Guard, GuardConfig, Measurement, choose
from r1kit.rollout import Prompt
from r1kit.rows import Problem
from r1kit.sampler import Completion, SamplingConfig
from r1kit.watch import WatchConfig
from tests.r1kit.models import small_model

Reward = Callable[[Sequence[Problem], Sequence[Completion]], Sequence[Mapping[str, float]]]


def problem(name: str, verifier: str) -> Problem:
    return Problem.model_validate({"id": name, "source": "t", "licence": "MIT", "prompt": name, "verifier": verifier})


def prompts(kind: str, verifier: str, count: int, first: int) -> list[Prompt]:
    return [Prompt(problem(f"{kind}{i}", verifier), [first + i, 6, 7]) for i in range(count)]


REASONING, GENERAL = prompts("p", "gym", 6, 5), prompts("g", "none", 6, 30)
HELDOUT = prompts("hp", "gym", 32, 50) + prompts("hg", "none", 32, 90)
STEPS, LAST = 26, 20
HALF = len(tinyworld.tokenizer()) // 2
CONFIG = GrpoConfig(
    steps=STEPS, prompts_per_step=4, samples_per_prompt=8, sampling=SamplingConfig(max_tokens=1), learning_rate=2e-2,
    kl_coefficient=0.0, rewards=RewardWeights(accuracy=0.0, format=0.0, preference=1.0), preference_last_steps=LAST,
    general_share=1.0, checkpoint_every_steps=3, checkpoint_max_share=1, guard=GuardConfig(every_steps=5, prompts=32),
    watch=WatchConfig(truncated_steps=None, zero_variance_steps=None),
)  # fmt: skip


def low(completion: Completion) -> float:
    return float(completion.token_ids[0] < HALF)


def hackable(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[dict[str, float]]:
    """A reward model that loves what the verifier calls wrong."""
    return [
        {"preference": 1 - low(c)} if p.verifier == "none" else {"accuracy": low(c)}
        for p, c in zip(problems, completions, strict=True)
    ]


def sound(problems: Sequence[Problem], completions: Sequence[Completion]) -> list[dict[str, float]]:
    """A reward model that loves what the verifier calls right."""
    return [
        {"preference" if p.verifier == "none" else "accuracy": low(c)}
        for p, c in zip(problems, completions, strict=True)
    ]


def train(
    folder: Path, reward: Reward, log=lambda *_: None, say=lambda _: None, heldout=HELDOUT, **guard: Any
) -> tuple[list[bytes], dict[str, float]]:
    model, tokenizer = small_model()
    config = CONFIG.model_copy(update={"guard": CONFIG.guard.model_copy(update=guard)})
    metrics = grpo.train(
        model, tokenizer, REASONING, reward, config, seed=1, checkpoints=folder, log=log, say=say,
        general_prompts=GENERAL, heldout_prompts=heldout,
    )  # fmt: skip
    return [parameter.detach().numpy().tobytes() for parameter in model.parameters()], metrics


def facts(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "guard" in name or "hacking" in name}


@pytest.fixture(scope="module")
def hacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A training whose reward model is hacked, flagged and left to its end."""
    curve: list[tuple[int, dict[str, float]]] = []
    said: list[str] = []
    weights, metrics = train(
        tmp_path_factory.mktemp("hacked"), hackable, lambda step, total, m: curve.append((step, dict(m))), said.append
    )
    return {"weights": weights, "metrics": metrics, "curve": curve, "said": said}


def test_hacking_a_reward_model_raises_the_alarm(hacked: dict[str, Any]) -> None:
    found = facts(hacked["metrics"])
    assert found["reward_hacking"] == 1 and STEPS - LAST < found["reward_hacking_step"] <= STEPS
    assert found["last_guard_accuracy"] < found["first_guard_accuracy"] - 0.3
    assert found["last_guard_preference"] > found["first_guard_preference"] + 0.3
    (words,) = [line for line in hacked["said"] if "reward hacking" in line]
    assert words.startswith(
        f"after step {found['reward_hacking_step']:.0f} on held-out prompts the reward models' score"
    )
    assert "raise kl_coefficient" in words


def test_it_measures_only_where_reward_models_count_and_after_the_last_step(hacked: dict[str, Any]) -> None:
    measured = [step for step, metrics in hacked["curve"] if "guard_accuracy" in metrics]
    assert measured == [STEPS - LAST, STEPS - LAST + 5, STEPS - LAST + 10, STEPS - LAST + 15, STEPS]
    assert hacked["curve"][-1][1]["guard_accuracy"] == hacked["metrics"]["last_guard_accuracy"]


def test_measuring_changes_no_bit_of_the_policy(hacked: dict[str, Any], tmp_path: Path) -> None:
    for name, changes in (("off", {"prompts": 0}), ("often", {"every_steps": 2}), ("nothing", {"heldout": ()})):
        weights, metrics = train(tmp_path / name, hackable, **changes)
        assert weights == hacked["weights"]
        assert bool(facts(metrics)) == (name == "often")


def test_a_sound_training_raises_none(tmp_path: Path) -> None:
    said: list[str] = []
    _, metrics = train(tmp_path, sound, say=said.append, every_steps=1, action="stop")
    found = facts(metrics)
    assert found["reward_hacking"] == 0 and "reward_hacking_step" not in found and not said
    assert found["last_guard_accuracy"] > found["first_guard_accuracy"] + 0.2
    assert found["last_guard_preference"] > found["first_guard_preference"] + 0.2


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("kill_after", [2, 6, 8, 22])
def test_killed_and_resumed_it_rings_at_the_same_step_with_the_same_figures(
    hacked: dict[str, Any], tmp_path: Path, kill_after: int
) -> None:
    def die(step: int, total: int, metrics: Mapping[str, float]) -> None:
        if step == kill_after:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path, hackable, die)
    said: list[str] = []
    weights, metrics = train(tmp_path, hackable, say=said.append)
    assert weights == hacked["weights"] and facts(metrics) == facts(hacked["metrics"])
    assert [line for line in said if "reward hacking" in line] == hacked["said"][-1:]


def test_it_stops_the_training_where_it_is_to_and_goes_on_when_told(hacked: dict[str, Any], tmp_path: Path) -> None:
    rang = hacked["metrics"]["reward_hacking_step"]
    seen: list[int] = []
    for _ in range(2):  # what is started again as it is stops again
        with pytest.raises(ValueError, match=rf"stopped after step {rang:.0f}: on held-out .*step-00000006$") as caught:
            train(tmp_path, hackable, lambda step, *_: seen.append(step), action="stop")
        assert "set guard.action to flag" in str(caught.value)
    assert max(seen) == rang
    weights, metrics = train(tmp_path, hackable, action="flag")
    assert weights == hacked["weights"] and facts(metrics) == facts(hacked["metrics"])


def test_reward_models_that_count_from_the_first_step_are_measured_before_it(tmp_path: Path) -> None:
    model, tokenizer = small_model()
    config = CONFIG.model_copy(update={"steps": 3, "preference_last_steps": 9, "learning_rate": 1e-9})
    before = [parameter.clone() for parameter in model.parameters()]
    metrics = grpo.train(
        model, tokenizer, REASONING, hackable, config, seed=1, checkpoints=tmp_path, log=lambda *_: None,
        general_prompts=GENERAL, heldout_prompts=HELDOUT,
    )  # fmt: skip
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(before, model.parameters(), strict=True))
    assert metrics["first_guard_accuracy"] == metrics["last_guard_accuracy"] and metrics["reward_hacking"] == 0


def guarded(measurements: Sequence[tuple[Sequence[float], Sequence[float]]], **settings: Any) -> Guard:
    config, guard = GuardConfig(**settings), Guard()
    for step, (accuracy, preference) in enumerate(measurements):
        found = Measurement(step=step, accuracy=tuple(accuracy), preference=tuple(preference))
        guard = guard.after(found, config, len(measurements) - 1)
    return guard


RIGHT, WRONG, LIKED, DISLIKED = [1.0] * 16, [0.0] * 16, [0.8] * 16, [0.3] * 16


@pytest.mark.parametrize(
    ("accuracy", "preference", "rings"),
    [(WRONG, LIKED, True), (WRONG, DISLIKED, False), (RIGHT, LIKED, False), (WRONG, [0.1] * 16, False)],
)
def test_both_signs_are_needed(accuracy: list[float], preference: list[float], rings: bool) -> None:
    guard = guarded([(RIGHT, DISLIKED), (accuracy, preference)])
    assert (guard.rang_at is not None) == rings
    assert guard.facts()["reward_hacking"] == rings


def test_a_handful_of_prompts_is_never_sure() -> None:
    assert guarded([(RIGHT[:2], DISLIKED[:2]), (WRONG[:2], LIKED[:2])]).rang_at is None


def test_it_looks_at_the_mean_of_a_window() -> None:
    once = [(RIGHT, DISLIKED), (WRONG, LIKED), (RIGHT, LIKED), (RIGHT, LIKED)]
    assert guarded(once, window=1).rang_at == 1
    calm = [(RIGHT, LIKED)] * 4
    late = [(RIGHT, DISLIKED), *calm, ([0.0] * 3 + [1.0] * 13, LIKED), *calm]
    assert guarded(late, window=3).rang_at is None
    assert guarded([*late, *[(WRONG, LIKED)] * 3], window=3).rang_at in (10, 11)


def test_an_alarm_is_not_taken_back_and_what_was_good_before_is_known() -> None:
    guard = guarded([(RIGHT, DISLIKED), (RIGHT, LIKED), (WRONG, LIKED), (RIGHT, LIKED)], window=1)
    assert (guard.rang_at, guard.facts()["reward_hacking"]) == (2, 1)
    stopped = guarded([(RIGHT, DISLIKED), (RIGHT, LIKED), (WRONG, LIKED)], window=1)
    alarm = stopped.alarm(GuardConfig(action="stop"), 2)
    assert alarm is not None and alarm.steps == 1 and stopped.good_before(2) == 1
    assert stopped.alarm(GuardConfig(action="flag"), 2) is None


def test_chance_alone_rings_as_seldom_as_it_says() -> None:
    """Answers drawn anew each time with the same chances, a score that always rises, and forty measurements."""
    dice, rang = random.Random(11), 0
    for _ in range(120):
        chances = [dice.random() for _ in range(64)]
        rows = [([float(dice.random() < c) for c in chances], [0.3 + n / 200] * 64) for n in range(41)]
        rang += guarded(rows).rang_at is not None
    assert rang <= 9  # 2.5 % are 3


@given(
    st.lists(st.tuples(st.lists(st.sampled_from([0.0, 1.0]), min_size=8, max_size=8),
                       st.lists(st.floats(0, 1), min_size=8, max_size=8)), min_size=2, max_size=8),
    st.integers(1, 4), st.randoms(use_true_random=False),
)  # fmt: skip
def test_the_order_of_prompts_does_not_matter_and_a_checkpoint_keeps_all(rows: Any, window: int, dice: Any) -> None:
    order = dice.sample(range(8), 8)
    turned = [([a[i] for i in order], [p[i] for i in order]) for a, p in rows]
    ours, theirs = guarded(rows, window=window), guarded(turned, window=window)
    assert ours.rang_at == theirs.rang_at and ours.facts() == pytest.approx(theirs.facts())
    assert Guard.model_validate_json(ours.model_dump_json()) == ours


def test_prompts_are_drawn_by_seed_and_id_whatever_their_order() -> None:
    rows = [problem(f"a/{i}", "math") for i in range(40)] + [problem(f"b/{i}", "none") for i in range(5)]
    config = GuardConfig(prompts=8)
    chosen = choose(rows, config, seed=3)
    assert [row.verifier for row in chosen] == ["math"] * 8 + ["none"] * 5
    assert choose(rows[::-1], config, seed=3) == chosen and choose(rows, config, seed=4) != chosen
    assert choose(rows[:41], config, seed=3) == [] and choose(rows[40:], config, seed=3) == []
    assert choose(rows, GuardConfig(prompts=0), seed=3) == []


def test_when_it_is_due() -> None:
    config = GuardConfig(every_steps=10)
    assert [step for step in range(101) if config.due(step, 100, 25)] == [75, 85, 95, 100]
    assert config.looks(100, 25) == 3
    assert not any(config.due(step, 100, 0) for step in range(101))
    assert not any(GuardConfig(prompts=0).due(step, 100, 25) for step in range(101))
    assert [step for step in range(8) if GuardConfig(every_steps=4).due(step, 7, 99)] == [0, 4, 7]
