"""From a model directory to a model directory by GRPO: the same bits every time, killed or not."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from r1kit import models
from r1kit.grpo_config import GrpoConfig, RewardWeights
from r1kit.reinforce import reinforce
from r1kit.rewards import VerifierPool
from r1kit.sampler import SamplingConfig
from tests.r1kit.trained import PROBLEMS, save_trained

CONFIG = GrpoConfig(
    steps=4, prompts_per_step=4, samples_per_prompt=4, sampling=SamplingConfig(max_tokens=24), learning_rate=1e-3,
    rewards=RewardWeights(accuracy=1.0, format=1.0), checkpoint_every_steps=1, checkpoint_max_share=1,
)  # fmt: skip


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_trained(tmp_path_factory.mktemp("trained"))


def train(model: Path, place: Path, problems=PROBLEMS, log=lambda *_: None, **options) -> bytes:
    with VerifierPool() as pool:
        reinforce(model, problems, CONFIG, place / "model", pool=pool, seed=1,
                  checkpoints=place / "checkpoints", log=log, say=lambda _: None, **options)  # fmt: skip
    return (place / "model" / "model.safetensors").read_bytes()


def test_it_writes_a_model_that_has_moved_and_loads(model: Path, tmp_path: Path) -> None:
    seen: list[Mapping[str, float]] = []
    weights = train(model, tmp_path, log=lambda step, total, metrics: seen.append(metrics))
    assert weights != (model / "model.safetensors").read_bytes()
    assert len(seen) == 4 and all(0 <= metrics["reward_accuracy"] <= 1 for metrics in seen)
    assert any(metrics["reward_accuracy"] > 0 for metrics in seen), "the real verifier found right answers"
    _, tokenizer = models.load(tmp_path / "model")
    assert tokenizer.chat_template


def test_killed_and_resumed_equals_uninterrupted(model: Path, tmp_path: Path) -> None:
    def die(step: int, total: int, metrics: Mapping[str, float]) -> None:
        if step == 2:
            raise Killed

    with pytest.raises(Killed):
        train(model, tmp_path / "killed", log=die)
    assert not (tmp_path / "killed" / "model").exists()
    assert train(model, tmp_path / "killed") == train(model, tmp_path / "whole")


def test_prompts_that_nothing_verifies_are_left_out(model: Path, tmp_path: Path) -> None:
    general = [problem.model_copy(update={"id": f"g/{problem.id}", "verifier": "none"}) for problem in PROBLEMS]
    assert train(model, tmp_path / "mixed", [*PROBLEMS, *general]) == train(model, tmp_path / "plain")


def test_a_template_that_cannot_teach_the_format_is_refused_before_training(model: Path, tmp_path: Path) -> None:
    policy, tokenizer = models.load(model)
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "message['content']", "message['content'].split('</think>')[-1]"
    )
    models.save(policy, tokenizer, tmp_path / "swallowing")
    with pytest.raises(ValueError, match="swallows <think>"):
        train(tmp_path / "swallowing", tmp_path / "out")
