"""Trainings that are killed at any instant end in the bits of uninterrupted ones: a hundred kills, at new instants."""

import json
import subprocess
import sys

import pytest

from tasks.workspace import REPOSITORY

KILLS = 20


@pytest.mark.timeout(900)
def test_a_hundred_kills_change_no_bit() -> None:
    """Six stages, each killed at 20 random instants or more, half of them inside the write of a checkpoint."""
    command = [sys.executable, "-m", "benchmarks.hunt", "--kills", str(KILLS)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, done.stderr  # its first line names the seed
    told = json.loads(done.stdout.splitlines()[-1])
    hunted_in = {"zero", "reason", "prefer", "cold_start", "reward_models-helpful", "reward_models-harmless"}
    assert told["equal"] and set(told["stages"]) == hunted_in
    for hunted in told["stages"].values():
        inside = hunted["kills_inside_a_write"]
        assert inside >= KILLS / 2 and hunted["kills"] - inside >= KILLS / 2
    fell_on = {
        "resumed from a checkpoint", "a half-used rollout", "a rollout being drawn or verified",
        "after the reference was refreshed", "reward models in use", "checkpoint: tensors being written",
        "checkpoint: written, not yet renamed",
    }  # fmt: skip
    assert fell_on <= set(told["parts"]), done.stderr
