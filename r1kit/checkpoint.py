"""Atomic checkpoints inside a stage: written, synced, then renamed; a torn one is never used."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from r1kit import parallel

_TENSORS, _STATE, _SEAL = "tensors.safetensors", "state.json", "seal.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on: tensors by name, and a JSON state."""

    step: int
    tensors: dict[str, torch.Tensor]
    state: dict[str, Any]


def save(
    directory: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], keep: int = 2
) -> None:
    """Write a checkpoint so that a kill at any instant leaves the one before it whole; of processes, rank 0 does.

    Args:
        directory: folder of all checkpoints of one training.
        step: number of finished steps.
        tensors: everything that is a tensor, by name; shared storage is copied.
        state: everything else, as JSON.
        keep: how many to keep.
    """
    if parallel.rank():
        return
    directory.mkdir(parents=True, exist_ok=True)
    for torn in directory.glob("*.tmp"):
        shutil.rmtree(torn)
    partial = directory / f"step-{step:08d}.tmp"
    partial.mkdir()
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, partial / _TENSORS)
    (partial / _STATE).write_text(json.dumps(dict(state), sort_keys=True))
    (partial / _SEAL).write_text(json.dumps({name: _digest(partial / name) for name in (_TENSORS, _STATE)}))
    for name in (_TENSORS, _STATE, _SEAL):
        _sync(partial / name)
    _sync(partial)
    final = directory / f"step-{step:08d}"
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _sync(directory)
    for old in sorted(directory.glob("step-????????"))[:-keep]:
        shutil.rmtree(old)


def latest(directory: Path, say=lambda line: None) -> Checkpoint | None:
    """The newest checkpoint whose bytes are those that were written; altered ones are passed over and said.

    Raises ValueError where several processes do not find the same.
    """
    found = _newest(directory, say)
    parallel.agree(f"the last step in {directory}", found.step if found else None)
    return found


def _newest(directory: Path, say) -> Checkpoint | None:
    for path in sorted(directory.glob("step-????????"), reverse=True):
        if not _whole(path):
            say(f"checkpoint {path.name} is torn or altered: using the one before it")
            continue
        state = json.loads((path / _STATE).read_text())
        return Checkpoint(int(path.name.removeprefix("step-")), load_file(path / _TENSORS), state)
    return None


def _whole(path: Path) -> bool:
    try:
        seal = json.loads((path / _SEAL).read_text())
        return all(seal[name] == _digest(path / name) for name in (_TENSORS, _STATE))
    except (OSError, ValueError, KeyError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
