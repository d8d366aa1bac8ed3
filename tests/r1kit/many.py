"""What test_many.py has two processes do, and does itself in one; run as a module by torchrun."""

import contextlib
import gc
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from r1kit import grpo, models, parallel, reward_model, sft
from r1kit.config import load
from r1kit.engine import open_engine
from r1kit.logprobs import response_logprobs
from r1kit.parallel import Layout
from r1kit.sampler import SamplingConfig
from r1kit.sft import SftConfig
from tasks.isolated import end_with_parent
from tests.r1kit import test_grpo, test_reward_model
from tests.r1kit.models import small_model
from tests.r1kit.test_sft import EXAMPLES

STAGES = (0, 1, 2, 3)
STEPS, CUT, KEPT = 20, 12, 10
"""Steps of a training, the step at which it is cut off, and the one of its last checkpoint."""
SFT = SftConfig(
    learning_rate=3e-3, epochs=100, max_steps=STEPS, batch_size=5, max_length_tokens=16, micro_batch_tokens=16,
    max_gradient_norm=0.5, weight_decay=0.1, checkpoint_every_steps=KEPT,
)  # fmt: skip
GRPO = test_grpo.CONFIG.model_copy(
    update={
        "steps": STEPS, "prompts_per_step": 3, "samples_per_prompt": 4, "sampling": SamplingConfig(max_tokens=6),
        "learning_rate": 3e-3, "minibatches": 2, "reference_refresh_steps": 8, "checkpoint_every_steps": KEPT,
    }
)  # fmt: skip
JUDGE = test_reward_model.CONFIG.model_copy(update={"micro_batch_tokens": 64})
CLUSTER = load(Path(__file__).parents[2] / "pipeline.yaml", "cluster")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
Log = Callable[[int, int, Mapping[str, float]], None]


class Cut(Exception):
    """Stands for a kill."""


def learn(place: Path, log: Log, config: SftConfig = SFT, dtype: torch.dtype = torch.float32) -> None:
    """Supervised training."""
    model, tokenizer = small_model(layers=1)
    model.to(dtype)  # pyright: ignore[reportArgumentType]
    sft.train(model, EXAMPLES, config, seed=1, checkpoints=place / "checkpoints", log=log)
    models.save(model, tokenizer, place / "model")


def reinforce(place: Path, log: Log) -> None:
    """GRPO with a reference that is renewed once before the cut and once after, and two optimizer steps a rollout."""
    model, tokenizer = small_model(layers=1)
    grpo.train(
        model, tokenizer, test_grpo.PROMPTS, test_grpo._reward, GRPO, seed=1, checkpoints=place / "checkpoints", log=log
    )
    models.save(model, tokenizer, place / "model")


TRAININGS: dict[str, Callable[[Path, Log], None]] = {"sft": learn, "grpo": reinforce}


def train(kind: str, place: Path, cut: bool = False) -> None:
    """A training, from its checkpoint where it has one, cut off or whole; its curve is written down."""
    curve: list[Any] = []

    def log(step: int, total: int, metrics: Mapping[str, float]) -> None:
        curve.append([step, {name: value for name, value in metrics.items() if not name.startswith("seconds")}])
        if cut and step == CUT:
            raise Cut

    with contextlib.suppress(Cut):
        TRAININGS[kind](place, log)
    write(place / "curve.json", curve)


def judge(place: Path) -> None:
    """A reward model's training; what it then thinks of two texts."""
    model, tokenizer = small_model(layers=1)
    curve: list[Any] = []
    made, _ = reward_model.train(
        model, tokenizer, test_reward_model.pairs("helpful", 80), JUDGE, kind="helpful", seed=5,
        checkpoints=place / "checkpoints", log=lambda step, total, metrics: curve.append([step, dict(metrics)]),
    )  # fmt: skip
    made.save(place / "judge")
    curve.append([0, {"score": made.score(["what is it"], ["milk lake honey cat"])[0]}])
    write(place / "curve.json", curve)


def by_profile(place: Path, dtype: torch.dtype) -> None:
    """Supervised training as profile cluster has it, its sizes cut down."""
    sizes = {"max_steps": STEPS, "batch_size": 6, "max_length_tokens": 16, "micro_batch_tokens": 8, "shuffle": False}
    config = CLUSTER.cold_start.sft.model_copy(update={**sizes, "learning_rate": 3e-3})
    curve: list[Any] = []
    learn(place, lambda step, total, metrics: curve.append([step, dict(metrics)]), config, dtype)
    write(place / "curve.json", curve)


def burst(place: Path) -> None:
    """A step whose loss is not finite in one of the processes, and one without any loss."""
    model, _ = small_model(layers=1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    engine = open_engine(model, SFT)
    norms = [engine.step(1.0)]
    logprobs, _, _ = response_logprobs(engine.model, [[5, 6]], [[7, 3]])
    engine.backward(logprobs.sum() * (float("inf") if parallel.rank() == 0 else 1.0))
    norms.append(engine.step(1.0))
    engine.finish()
    same = [torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
    write(place / "burst.json", {"norms": [str(norm) for norm in norms], "same": all(same)})


def write(path: Path, content: object) -> None:
    """Write JSON; rank 0 does."""
    if parallel.rank() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))


def take_over(source: Path, target: Path) -> None:
    """Copy checkpoints, so that another training goes on from them."""
    if parallel.rank() == 0:
        shutil.copytree(source / "checkpoints", target / "checkpoints")
    parallel.exchange(None)


def everything(root: Path) -> None:
    """All that two processes do, stage by stage, below `root`, where `one` has been at work."""
    before = root / "one"
    for stage in STAGES:
        parallel.use(Layout(stage))
        place = root / str(stage)
        for kind in TRAININGS:
            train(kind, place / kind)
            train(kind, place / f"{kind}-cut", cut=True)
            take_over(place / f"{kind}-cut", place / f"{kind}-resumed")
            train(kind, place / f"{kind}-resumed")
            take_over(before / f"{kind}-cut", place / f"{kind}-taken-over")
            train(kind, place / f"{kind}-taken-over")
        judge(place / "judge")
        burst(place)
        before = place
    runtime = CLUSTER.runtime
    parallel.use(Layout(runtime.zero_stage, runtime.activation_checkpointing))
    for name, dtype in DTYPES.items():
        by_profile(root / "cluster" / name, dtype)


def one(root: Path) -> None:
    """What one process does for comparison, and for the others to go on from."""
    for kind in TRAININGS:
        train(kind, root / "one" / kind)
        train(kind, root / "one" / f"{kind}-cut", cut=True)
    judge(root / "one" / "judge")
    burst(root / "one")
    for name, dtype in DTYPES.items():
        by_profile(root / "one" / name, dtype)


def survive(root: Path) -> None:
    """GRPO by ZeRO-3, in the place where it may have been killed."""
    parallel.use(Layout(3))
    train("grpo", root / "killed")


if __name__ == "__main__":
    end_with_parent()
    torch.use_deterministic_algorithms(True, warn_only=True)
    importlib.import_module("r1kit.zero")
    gc.freeze()  # DeepSpeed collects garbage for each engine, and would go through all that was imported
    parallel.join()
    {"everything": everything, "survive": survive}[sys.argv[2]](Path(sys.argv[1]))
    parallel.leave()
