"""Checkpoints are whole or not there."""

from pathlib import Path

import pytest
import torch

from r1kit import checkpoint


def _save(directory: Path, step: int) -> None:
    checkpoint.save(directory, step, {"weights": torch.full((3,), float(step))}, {"step": step})


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    _save(tmp_path, 7)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.step, found.state) == (7, {"step": 7})
    assert torch.equal(found.tensors["weights"], torch.full((3,), 7.0))


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        _save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "seal.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_harmed_checkpoint_is_passed_over_and_said(tmp_path: Path, name: str, harm: str) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    victim = tmp_path / "step-00000002" / name
    content = bytearray(victim.read_bytes())
    if harm == "remove":
        victim.unlink()
    elif harm == "cut":
        victim.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    said: list[str] = []
    found = checkpoint.latest(tmp_path, said.append)
    assert found is not None and found.step == 1
    assert len(said) == 1 and "step-00000002" in said[0]


def test_a_half_written_checkpoint_is_not_one(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    (tmp_path / "step-00000002.tmp").mkdir()
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 1
    _save(tmp_path, 3)
    assert not list(tmp_path.glob("*.tmp"))


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "nowhere") is None
