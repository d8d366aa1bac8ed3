"""Every stage's body, in two processes that DeepSpeed's launcher starts, makes what it makes in one."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from r1kit.config import Config, load
from r1kit.data.prepare import prepare
from tasks.data import files_of
from tasks.launch import MODELLING, launch
from tasks.machine import verifier_pool
from tasks.stage import StageContext
from tests.tasks.chained import Chain, run

MICRO = Path(__file__).parents[1] / "flows" / "micro.yaml"
SHORT = (
    "zero.steps=2", "reason.steps=2", "prefer.steps=2", "prefer.preference_last_steps=1",
    "cold_start.zero_prompts=8", "reject.prompts=24", "distill.students.1.sft.max_steps=3",
    "distill.students.1.pretrain.max_steps=3", "evaluate.max_problems=12", "runtime.threads=1",
    "zero.sampling.max_tokens=24", "reason.sampling.max_tokens=24", "prefer.sampling.max_tokens=24",
)  # fmt: skip


TIMES = ("seconds", "checkpoint_share")
"""What depends on the clock."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared data."""
    made = tmp_path_factory.mktemp("data")
    config = configuration(made)
    with verifier_pool(config.runtime) as pool:
        prepare(config.data, made, cache_dir=made, pool=pool, say=lambda _: None, log=lambda *_: None)
    return made


def configuration(place: Path, *settings: str) -> Config:
    file = place / "pipeline.yaml"
    file.write_text(yaml.safe_dump({"profiles": {"micro": yaml.safe_load(MICRO.read_text())}}))
    return load(file, "micro", [*SHORT, *settings])


def context(workdir: Path, files: Path, heard: list[Any], *settings: str) -> StageContext:
    workdir.mkdir()
    config: Any = Chain(configuration(workdir, *settings))
    return StageContext(
        name="chained", variant="", config=config, seed=3, key="", workdir=workdir, cache_dir=workdir,
        inputs=files_of(files), digests={}, log=lambda *step: heard.append(step), say=lambda line: None,
    )  # fmt: skip


def optimizer_steps(heard: list[Any]) -> list[tuple[int, int]]:
    """Step and total of what is said of trainings; where work is shared out, each process counts its own share."""
    return [(step, total) for step, total, metrics in heard if "learning_rate" in metrics]


def test_every_stage_makes_in_two_processes_what_it_makes_in_one(files: Path, tmp_path: Path) -> None:
    alone, together = [], []
    one = run(context(tmp_path / "one", files, alone))
    given = context(tmp_path / "two", files, together, "runtime.processes=2", "runtime.zero_stage=2")
    two = launch("chained", given, processes=2, launcher="deepspeed")
    assert {name.partition("/")[0] for name in two.outputs} == MODELLING
    assert set(two.outputs) == set(one.outputs)
    figures = [
        {name: value for name, value in made.metrics.items() if not any(time in name for time in TIMES)}
        for made in (two, one)
    ]
    assert figures[0] == pytest.approx(figures[1], abs=2e-3, rel=2e-3)
    assert optimizer_steps(together) == optimizer_steps(alone)
    for name, (kind, path) in two.outputs.items():
        theirs = one.outputs[name][1]
        if kind in ("model", "reward_model"):
            weights, others = load_file(path / "model.safetensors"), load_file(theirs / "model.safetensors")
            assert all(torch.allclose(weights[part], others[part], atol=2e-3) for part in others), name
        elif kind == "sft_rows":
            assert path.read_bytes() == theirs.read_bytes(), name
