"""Laws of many processes: what two do together is what one does alone, and each may go on from the other."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from r1kit import parallel
from r1kit.engine import even_micro_batches, micro_batches
from tests.r1kit import many
from tests.r1kit.many import CUT, KEPT, STAGES, STEPS

TOLERANCE = 1e-4
TIMEOUT_SECONDS = 240.0


def start(root: Path, what: str, log: Path) -> "subprocess.Popen[bytes]":
    """Two processes that do a function of many.py, started by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with log.open("wb") as stream:
        return subprocess.Popen(
            [*command, "-m", "tests.r1kit.many", str(root), what], env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[2], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip


def finish(process: "subprocess.Popen[bytes]", log: Path) -> None:
    try:
        assert process.wait(TIMEOUT_SECONDS) == 0, log.read_text()[-6000:]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one process has done what there is to do, and two have with each ZeRO stage."""
    made = tmp_path_factory.mktemp("many")
    many.one(made)
    finish(start(made, "everything", made / "log"), made / "log")
    return made


def curve(place: Path) -> list[Any]:
    return json.loads((place / "curve.json").read_text())


def close(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether two curves have the same steps and metrics, to tolerance."""
    assert [(step, set(metrics)) for step, metrics in ours] == [(step, set(metrics)) for step, metrics in theirs]
    return all(
        metrics == pytest.approx(others, abs=TOLERANCE, rel=TOLERANCE)
        for (_, metrics), (_, others) in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", [*many.TRAININGS, "judge"])
def test_two_processes_make_the_curve_of_one(root: Path, kind: str, stage: int) -> None:
    ours, theirs = curve(root / str(stage) / kind), curve(root / "one" / kind)
    assert kind == "judge" or len(ours) == STEPS
    assert close(ours, theirs)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", many.TRAININGS)
def test_what_they_export_is_a_model_that_transformers_loads(root: Path, kind: str, stage: int) -> None:
    models = [AutoModelForCausalLM.from_pretrained(root / name / kind / "model") for name in (str(stage), "one")]
    assert [path.name for path in (root / str(stage) / kind / "model").glob("*.safetensors")] == ["model.safetensors"]
    for (name, ours), (_, theirs) in zip(*(model.named_parameters() for model in models), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3), name


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", many.TRAININGS)
def test_cut_off_and_resumed_they_end_in_the_same_bits(root: Path, kind: str, stage: int) -> None:
    place = root / str(stage)
    assert len(curve(place / f"{kind}-cut")) == CUT
    resumed = curve(place / f"{kind}-resumed")
    assert resumed == curve(place / kind)[KEPT:]
    ours, theirs = (load_file(place / name / "model" / "model.safetensors") for name in (f"{kind}-resumed", kind))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("place", ["one", *map(str, STAGES)])
def test_a_step_that_is_not_finite_changes_nothing(root: Path, place: str) -> None:
    found = json.loads((root / place / "burst.json").read_text())
    assert found["same"] and found["norms"][0] == "0.0" and found["norms"][1] in ("nan", "inf")


def test_killed_as_a_whole_and_started_again_they_end_in_the_same_bits(root: Path) -> None:
    process = start(root, "survive", root / "killed.log")
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not list((root / "killed").glob("checkpoints/step-*[0-9]")):
        assert process.poll() is None and time.monotonic() < deadline, (root / "killed.log").read_text()[-6000:]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)  # and with it its processes, which asked the kernel to
    process.wait()
    assert not (root / "killed" / "curve.json").is_file(), "it was killed before its end"
    finish(start(root, "survive", root / "again.log"), root / "again.log")
    assert curve(root / "killed") == curve(root / "3" / "grpo")[KEPT:]
    ours, theirs = (load_file(root / place / "model" / "model.safetensors") for place in ("killed", "3/grpo"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", many.TRAININGS)
def test_they_go_on_from_what_one_or_another_stage_has_begun(root: Path, kind: str, stage: int) -> None:
    """Stage 0 from one process, each other from the stage before it."""
    assert close(curve(root / str(stage) / f"{kind}-taken-over"), curve(root / "one" / kind)[KEPT:])


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", many.TRAININGS)
def test_one_goes_on_from_what_they_have_begun(root: Path, kind: str, stage: int) -> None:
    place = root / "one" / f"{kind}-after-{stage}"
    many.take_over(root / str(stage) / f"{kind}-cut", place)
    many.train(kind, place)
    assert close(curve(place), curve(root / "one" / kind)[KEPT:])


def test_the_profile_of_a_cluster_trains_as_one_process_does(root: Path) -> None:
    """ZeRO-3, gradients clipped, gathered over micro-batches, activations computed again."""
    runtime, config = many.CLUSTER.runtime, many.CLUSTER.cold_start.sft
    assert (runtime.zero_stage, runtime.activation_checkpointing, runtime.launcher) == (3, True, "deepspeed")
    ours, theirs = curve(root / "cluster" / "float32"), curve(root / "one" / "float32")
    assert close(ours, theirs)
    assert any(metrics["gradient_norm"] > config.max_gradient_norm for _, metrics in ours)  # some are clipped


def test_in_bfloat16_they_follow_float32_closely(root: Path) -> None:
    exact = [metrics["loss"] for _, metrics in curve(root / "one" / "float32")]
    for name in ("cluster", "one"):
        rough = [metrics["loss"] for _, metrics in curve(root / name / "bfloat16")]
        assert rough == pytest.approx(exact, abs=0.02) and rough != exact


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


@given(lengths, st.integers(1, 5))
def test_every_process_makes_as_many_passes_and_each_item_counts_once(items: list[int], processes: int) -> None:
    shares = [parallel.deal(items, rank, processes) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    real = [[item for item, weight in share if weight == 1.0] for share in shares]
    assert parallel.merge(real) == items
    assert all(weight in (0.0, 1.0) for share in shares for _, weight in share)


@given(lengths, st.integers(1, 60), st.integers(1, 5))
def test_micro_batches_for_several_are_even(rows: list[int], limit: int, processes: int) -> None:
    batches = even_micro_batches(rows, limit, processes)
    fewest = micro_batches(rows, limit)
    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    assert -(-len(batches) // processes) == -(-len(fewest) // processes)
    fullest = [max(len(batch) * max(rows[row] for row in batch) for batch in made) for made in (batches, fewest)]
    assert fullest[0] <= fullest[1]


def test_alone_there_is_nothing_to_share() -> None:
    assert (parallel.rank(), parallel.world_size()) == (0, 1)
    assert parallel.collect(parallel.mine([1, 2, 3])) == [1, 2, 3]
    assert parallel.total({"loss": 0.1}) == {"loss": 0.1}
    parallel.agree("the step", 3)
