"""Checkpoints are whole or not there, whatever happens to the process, the disk or the bytes."""

import errno
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from r1kit import checkpoint, models, tensorfile
from r1kit.reward_model import Judge, RewardModel
from tests.r1kit.models import small_model


def _save(directory: Path, step: int, **options: int) -> None:
    tensors = {"weights": torch.full((3,), float(step))}
    checkpoint.save(directory, step, tensors, {"step": step}, **options)
    checkpoint.settle(directory)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    _save(tmp_path, 7)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.step, found.state) == (7, {"step": 7})
    assert torch.equal(found.tensors["weights"], torch.full((3,), 7.0))


def test_tensors_may_change_as_soon_as_they_are_saved(tmp_path: Path) -> None:
    tensors = {"weights": torch.arange(1 << 20)}
    checkpoint.save(tmp_path, 1, tensors, {})
    tensors["weights"].zero_()
    found = checkpoint.latest(tmp_path)  # in the same process, it waits for the disk
    assert found is not None and torch.equal(found.tensors["weights"], torch.arange(1 << 20))


DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
          torch.int8, torch.uint8, torch.bool)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3)), max_size=8))
def test_a_tensor_file_is_read_as_it_was_written_also_by_safetensors(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[torch.dtype, list[int]]]
) -> None:
    path = tmp_path_factory.mktemp("tensors") / "file"
    numbers = torch.arange(64).remainder(7)
    tensors = {
        f"{n} ü": numbers[: int(np.prod(shape))].reshape(shape).to(dtype) for n, (dtype, shape) in enumerate(kinds)
    }
    sha256, size = tensorfile.write(path, tensors)
    for found in (tensorfile.read(path, size, sha256), load_file(path)):
        assert found.keys() == tensors.keys()
        assert all(found[name].dtype == t.dtype and torch.equal(found[name], t) for name, t in tensors.items())


def test_tensors_that_overlap_or_lie_scattered_are_written_in_full(tmp_path: Path) -> None:
    base = torch.arange(3 << 18).reshape(3, -1)  # more than is hashed at once
    tensors = {"all": base, "row": base[1], "turned": base.T, "parameter": torch.nn.Parameter(base[0].float())}
    sha256, size = tensorfile.write(tmp_path / "file", tensors)
    found = tensorfile.read(tmp_path / "file", size, sha256)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_a_tensor_is_written_from_where_it_lies() -> None:
    tensor = torch.randn(4, 5, requires_grad=True)
    view = tensorfile._bytes_of(tensor)
    assert np.frombuffer(view, np.uint8).ctypes.data == tensor.data_ptr() and len(view) == 80


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        _save(tmp_path, step)
    assert _names(tmp_path) == ["step-00000003", "step-00000004"]
    _save(tmp_path, 5, keep=1)
    assert _names(tmp_path) == ["step-00000005"]


def test_the_last_good_one_is_kept_as_long_as_it_is_the_last(tmp_path: Path) -> None:
    for step, good_step in ((2, 2), (4, 4), (6, 5), (8, 5), (10, 5)):
        _save(tmp_path, step, good_step=good_step)
    assert _names(tmp_path) == ["step-00000004", "step-00000008", "step-00000010"]
    assert checkpoint.newest(tmp_path, 7) == tmp_path / "step-00000004"
    _save(tmp_path, 12)
    assert _names(tmp_path) == ["step-00000010", "step-00000012"]
    assert checkpoint.newest(tmp_path, 9) is None


@pytest.mark.parametrize("keep", [1, 2])
def test_an_altered_one_of_a_later_step_takes_no_place_from_a_good_one(tmp_path: Path, keep: int) -> None:
    for step in (1, 2, 30):
        _save(tmp_path, step, keep=3)
    (tmp_path / "step-00000030" / "state.json").write_text("{}")
    _save(tmp_path, 3, keep=keep)
    assert _names(tmp_path) == ["step-00000002", "step-00000003"][-keep:]


def test_one_that_was_altered_is_written_anew(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    (tmp_path / "step-00000002" / "state.json").unlink()
    _save(tmp_path, 2)
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 2
    assert _names(tmp_path) == ["step-00000001", "step-00000002"]


FILES = ("tensors.safetensors", "state.json", "seal.json")


def _harms(content: bytes) -> Iterator[bytes]:
    """Every flip of one bit, every truncation, a byte more."""
    for place in range(len(content)):
        yield content[:place]
        for bit in range(8):
            yield content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
    yield content + b"\0"


@pytest.mark.parametrize("name", FILES)
def test_whatever_is_altered_is_passed_over_and_said(tmp_path: Path, name: str) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    victim = tmp_path / "step-00000002" / name
    whole = victim.read_bytes()
    for harmed in _harms(whole):
        victim.unlink()  # to cut a file off and write it again makes some file systems sync it
        victim.write_bytes(harmed)
        said: list[str] = []
        found = checkpoint.latest(tmp_path, said.append)
        assert found is not None and found.step == 1, harmed
        assert len(said) == 1 and "step-00000002 is torn or altered" in said[0] and "\n" not in said[0]
    victim.write_bytes(whole)
    found = checkpoint.latest(tmp_path)
    assert found is not None and found.step == 2


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    _save(tmp_path, 1)
    _save(tmp_path, 2)
    (tmp_path / "step-00000002" / name).unlink()
    said: list[str] = []
    found = checkpoint.latest(tmp_path, said.append)
    assert found is not None and found.step == 1
    assert said == [f"checkpoint step-00000002 is torn or altered ({name}: No such file or directory): using the one "
                    "before it"]  # fmt: skip


def test_none_left_whole_is_said(tmp_path: Path) -> None:
    _save(tmp_path, 1)
    (tmp_path / "step-00000001" / "seal.json").write_text("[]")
    said: list[str] = []
    assert checkpoint.latest(tmp_path, said.append) is None
    assert said[-1] == "no checkpoint is left whole: beginning anew"
    assert checkpoint.latest(tmp_path / "nowhere", said.append) is None and len(said) == 2


def _killed_at(directory: Path, event: int) -> bool:
    """Save step 3 in a fork that kills itself at its so many-th look at or change of the folder; whether it came to
    that."""
    child = os.fork()
    if child == 0:
        seen = 0

        def die(name: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if name.startswith(("open", "os.", "shutil.")) and any(str(directory) in str(a) for a in arguments):
                seen += 1
                if seen == event:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(die)
        _save(directory, 3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return os.WIFSIGNALED(status)


def test_killed_at_every_step_of_a_save_there_is_always_a_whole_one(tmp_path: Path) -> None:
    found_steps, left = [], set()
    for event in range(1, 100):
        directory = tmp_path / str(event)
        _save(directory, 1)
        _save(directory, 2)
        if not _killed_at(directory, event):
            break
        said: list[str] = []
        found = checkpoint.latest(directory, said.append)
        assert found is not None and said == []
        found_steps.append(found.step)
        left |= set(_names(directory))
        _save(directory, 4)
        assert _names(directory) == [f"step-0000000{found.step}", "step-00000004"]
    assert found_steps == sorted(found_steps) and set(found_steps) == {2, 3}, "the rename is the one instant"
    assert {"step-00000003.tmp", "step-00000001.old.tmp"} <= left, "it was killed while it wrote and while it removed"


def test_a_disk_that_fills_up_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    """The kernel refuses to let any file grow beyond a limit: the same as a full disk, at every byte."""
    _save(tmp_path, 1)
    largest = max(path.stat().st_size for path in (tmp_path / "step-00000001").iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in range(largest):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OSError) as caught:
                _save(tmp_path, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.errno == errno.EFBIG and caught.value.filename == str(tmp_path)
        assert _names(tmp_path) == ["step-00000001"]
    _save(tmp_path, 2)
    assert _names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_disk_that_fills_up_is_told_where_a_model_is_written_too(tmp_path: Path) -> None:
    model, tokenizer = small_model()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            models.save(model, tokenizer, tmp_path / "model")
        with pytest.raises(OSError) as caught_too:
            Judge(RewardModel(model.model, True), tokenizer, "harmless", 8).save(tmp_path / "judge")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == caught_too.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "model")


def test_what_the_disk_refuses_behind_the_training_is_told_at_the_next_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    _save(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        checkpoint.save(tmp_path, 2, {}, {})
        with pytest.raises(OSError, match="Input/output error") as caught:
            checkpoint.save(tmp_path, 3, {}, {})
    assert caught.value.filename == str(tmp_path) and _names(tmp_path) == ["step-00000001"]
    _save(tmp_path, 3)
    assert _names(tmp_path) == ["step-00000001", "step-00000003"]
