"""Atomic checkpoints inside a stage: written, synced, then renamed; a torn or altered one is never used.

Training goes on once the bytes are with the operating system: a thread waits for the disk, then renames. A process that
is killed meanwhile leaves the checkpoint before.

    step-00000020/
        tensors.safetensors
        state.json
        seal.json             size and sha256 of both, written last

A folder whose name ends in `.tmp` is being written or removed, and is no checkpoint.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from r1kit import parallel, tensorfile

_TENSORS, _STATE, _SEAL = "tensors.safetensors", "state.json", "seal.json"
_unfinished: dict[Path, futures.Future[None]] = {}


@dataclass(frozen=True)
class Checkpoint:
    """What a training needs to go on: tensors by name, and a JSON state."""

    step: int
    tensors: dict[str, Tensor]
    state: dict[str, Any]


def save(
    directory: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int = 2,
    good_step: int | None = None,
) -> None:
    """Write a checkpoint so that a kill at any instant, or a disk that fills up, leaves those before it whole.

    Of several processes, rank 0 does. It counts as one a little later; whoever asks for checkpoints in this process
    waits for it.

    Args:
        directory: folder of all checkpoints of one training.
        step: number of finished steps.
        tensors: everything that is a tensor, by name; not copied, and free to change when this returns.
        state: everything else, as JSON.
        keep: how many to keep, this one included. Those of later steps, which were left behind, go.
        good_step: the newest one at or before this step is kept too.

    Raises:
        OSError: as the file system does, with `directory` as its file name, of this save or of the one before;
            nothing of what could not be written is left then.
    """
    if parallel.rank():
        return
    if before := _unfinished.pop(directory, None):
        before.result()
    partial = (directory / _name(step)).with_suffix(".tmp")
    with _all_or_nothing(partial):
        directory.mkdir(parents=True, exist_ok=True)
        for torn in directory.glob("step-*.tmp"):
            shutil.rmtree(torn)
        partial.mkdir()
        _write(partial, tensors, state)
    thread = futures.ThreadPoolExecutor(1, "checkpoint")  # one a save: a lasting one would be lost in a forked process
    _unfinished[directory] = thread.submit(_finish, partial, step, keep, good_step)
    thread.shutdown(wait=False)


def settle(directory: Path) -> None:
    """Wait until a save into this folder has succeeded or failed."""
    if pending := _unfinished.pop(directory, None):
        futures.wait([pending])


def _finish(partial: Path, step: int, keep: int, good_step: int | None) -> None:
    """Turn what was written into a checkpoint, and let go of old ones."""
    directory, final = partial.parent, partial.with_suffix("")
    with _all_or_nothing(partial):
        for path in (*(partial / name for name in (_TENSORS, _STATE, _SEAL)), partial):
            _sync(path)
        if final.exists():  # it was passed over as torn or altered
            _discard(final)
        partial.rename(final)
        _sync(directory)
    kept = {*_steps(directory, step)[-keep:], *_steps(directory, step if good_step is None else good_step)[-1:]}
    for old in _steps(directory):
        if old not in kept:
            _discard(directory / _name(old))


@contextlib.contextmanager
def _all_or_nothing(partial: Path) -> Iterator[None]:
    """Remove what is only half there when the file system fails: its space may be what is missing."""
    try:
        yield
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise OSError(error.errno, error.strerror, str(partial.parent)) from error


def latest(directory: Path, say: Callable[[str], None] = lambda line: None) -> Checkpoint | None:
    """The newest checkpoint whose bytes are those that were written; others are passed over, and that is said.

    Raises:
        ValueError: where several processes do not find the same.
    """
    found = _newest_whole(directory, say)
    parallel.agree(f"the last step in {directory}", found.step if found else None)
    return found


def _newest_whole(directory: Path, say: Callable[[str], None]) -> Checkpoint | None:
    settle(directory)
    steps = _steps(directory)
    for step in reversed(steps):
        try:
            return _read(directory / _name(step), step)
        except (OSError, ValueError) as error:
            say(f"checkpoint {_name(step)} is torn or altered ({_reason(error)}): using the one before it")
    if steps:
        say("no checkpoint is left whole: beginning anew")
    return None


def newest(directory: Path, step: int) -> Path | None:
    """The folder of the newest checkpoint at or before a step."""
    settle(directory)
    steps = _steps(directory, step)
    return directory / _name(steps[-1]) if steps else None


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _steps(directory: Path, last: int | None = None) -> list[int]:
    """Steps of all checkpoints, or of those at or before `last`, oldest first."""
    found = sorted(int(path.name.removeprefix("step-")) for path in directory.glob("step-" + "[0-9]" * 8))
    return [step for step in found if last is None or step <= last]


def _write(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """All files of a checkpoint."""
    sha256, size = tensorfile.write(folder / _TENSORS, tensors)
    text = json.dumps(dict(state), sort_keys=True).encode()
    seal = {
        _TENSORS: {"bytes": size, "sha256": sha256},
        _STATE: {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()},
    }
    (folder / _STATE).write_bytes(text)
    (folder / _SEAL).write_text(json.dumps(seal))


def _read(folder: Path, step: int) -> Checkpoint:
    """A checkpoint. Raises ValueError or OSError where it is not whole."""
    seal = json.loads((folder / _SEAL).read_bytes())
    try:
        (size, sha256), (state_size, state_sha256) = ((seal[n]["bytes"], seal[n]["sha256"]) for n in (_TENSORS, _STATE))
    except (KeyError, TypeError):
        raise ValueError(f"{_SEAL} lacks an entry") from None
    text = (folder / _STATE).read_bytes()
    if (len(text), hashlib.sha256(text).hexdigest()) != (state_size, state_sha256):
        raise ValueError(f"{_STATE} does not hold the bytes that were written")
    return Checkpoint(step, tensorfile.read(folder / _TENSORS, size, sha256), json.loads(text))


def _reason(error: OSError | ValueError) -> str:
    """`seal.json: No such file or directory`."""
    if isinstance(error, OSError):
        return f"{Path(error.filename or '').name}: {error.strerror}"
    return f"{_SEAL} cannot be read" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else str(error)


def _discard(folder: Path) -> None:
    """Remove a checkpoint; half removed, it is no longer one."""
    doomed = folder.with_suffix(".old.tmp")
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
