"""What the hunt trains: small models and data, and the stages' settings."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from r1kit import models, reward_model, sft
from r1kit.config import Config
from r1kit.reward_model import Kind, RewardModelConfig
from r1kit.rows import PreferencePair, Problem, SftRow, Verifier, write_rows
from r1kit.sft import SftConfig
from tasks.stage import body_of, stage_name
from tests.r1kit.models import small_model

_WORDS = ("milk", "house", "bones", "garden", "grass", "field", "honey", "lake")
_ANSWERS: dict[Verifier, str] = {"choice": "b", "code": "a = 7"}
"""By verifier: one judges in place, the other in worker processes."""
_KINDS: tuple[Kind, ...] = ("helpful", "harmless")
NUM_PROBLEMS = len(_WORDS) * len(_ANSWERS)
_RL = {
    "steps": 8, "prompts_per_step": 4, "samples_per_prompt": 4, "sampling": {"max_tokens": 18}, "learning_rate": 3e-3,
    "kl_coefficient": 0.05, "reference_refresh_steps": 3, "micro_batch_tokens": 128, "checkpoint_every_steps": 1,
    "checkpoint_max_share": 1,
}  # fmt: skip
_SUPERVISED = {"learning_rate": 1e-3, "batch_size": 4, "checkpoint_every_steps": 2, "checkpoint_max_share": 1}
CONFIG = Config.model_validate(
    {
        "runtime": {"verifier_deadline_seconds": 60},  # a deadline that strikes is the one thing no state can repeat
        "zero": {**_RL, "minibatches": 2},
        "reason": {**_RL, "minibatches": 4, "rewards": {"language": 1.0}, "checkpoint_every_steps": 2},
        "prefer": {**_RL, "minibatches": 2, "rewards": {"preference": 1.0}, "preference_last_steps": 4,
                   "guard": {"every_steps": 2, "prompts": 8}},
        "cold_start": {
            "zero_prompts": 6, "zero_samples_per_prompt": 2, "max_tokens": 18, "batch_size": 4,
            "sft": {**_SUPERVISED, "epochs": 8},
        },
        "reward_models": {
            "helpful": {**_SUPERVISED, "epochs": 4},
            "harmless": {**_SUPERVISED, "epochs": 4},
        },
    }
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A stage to hunt in: its inputs by role, as names in the folder of inputs."""

    name: str
    inputs: Mapping[str, str]
    variant: str = ""

    @property
    def title(self) -> str:
        """`zero`, `reward_models-helpful`."""
        return stage_name(self.name, self.variant)


_REASONING = {"model": "model", "problems": "problems.parquet"}
STAGES = (
    Stage("zero", _REASONING),
    Stage("reason", _REASONING),
    Stage(
        "prefer",
        {
            **_REASONING,
            "benchmarks": "benchmarks.parquet",
            "preferences": "preferences.parquet",
            "helpful": "helpful",
            "harmless": "harmless",
        },
    ),
    Stage(
        "cold_start",
        {**_REASONING, "chains": "chains.parquet", "zero": "model", "benchmarks": "benchmarks.parquet"},
    ),
    *(Stage("reward_models", {"model": "model", "preferences": "preferences.parquet"}, kind) for kind in _KINDS),
)


def preload() -> None:
    """Import all that the stages import late, and train nothing."""
    import torch._dynamo  # noqa: F401  (optimizers do, at their first step)

    model, tokenizer = small_model()
    with tempfile.TemporaryDirectory() as folder:
        models.save(model, tokenizer, Path(folder))
        models.load(Path(folder))
    for stage in STAGES:
        body_of(stage.name)


def prepare(folder: Path) -> None:
    """Make all inputs: a model that has learned two responses by heart, problems, pairs, reward models."""
    folder.mkdir(parents=True)
    problems = [
        Problem(
            id=f"{verifier}/{word}", source="hunt", licence="MIT", prompt=f"{word} {verifier[0]}", verifier=verifier,
            answer=answer, tests="assert a == 7" if verifier == "code" else "",
        )
        for word in _WORDS
        for verifier, answer in _ANSWERS.items()
    ]  # fmt: skip
    chains = [
        SftRow(
            id=row.id, source="hunt", licence="MIT", prompt=row.prompt, kind="chain",
            response=f"<think> start 3 plus 4 </think> <answer> {row.answer} </answer>",
        )
        for row in problems
    ]  # fmt: skip
    pairs = [
        PreferencePair(
            id=f"pair/{route}/{number}", source="hunt", licence="MIT", prompt=f"tell me about the {word}", route=route,
            chosen=f"<think> {word} </think> <answer> {word} cat </answer>",
            rejected=f"<think> {word} </think> <answer> dog dog </answer>",
            split="heldout" if number % 4 == 0 else "train",
        )
        for route in _KINDS
        for number, word in enumerate(_WORDS)
    ]  # fmt: skip
    write_rows(folder / "problems.parquet", problems, Problem)
    held_out = [
        Problem(
            id=f"held/{word}", source="hunt", licence="MIT", prompt=f"which of the {word} is in the box", answer="b",
            verifier="choice", benchmark="held",
        )
        for word in _WORDS
    ]  # fmt: skip
    write_rows(folder / "benchmarks.parquet", held_out, Problem)
    write_rows(folder / "chains.parquet", chains, SftRow)
    write_rows(folder / "preferences.parquet", pairs, PreferencePair)
    model, tokenizer = small_model()
    config = SftConfig(learning_rate=2e-2, epochs=20, batch_size=8, max_length_tokens=64, checkpoint_every_steps=1000)
    sft.fit(
        model, tokenizer, chains, config, folder / "model", seed=0, checkpoints=folder / "checkpoints",
        log=lambda *_: None, say=print,
    )  # fmt: skip
    for kind in _KINDS:
        judge, _ = reward_model.train(
            model, tokenizer, pairs, RewardModelConfig(learning_rate=3e-3, batch_size=4, epochs=4), kind=kind, seed=0,
            checkpoints=folder / "checkpoints", log=lambda *_: None,
        )  # fmt: skip
        judge.save(folder / kind)
