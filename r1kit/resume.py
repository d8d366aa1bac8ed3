"""What a training that goes on must know: that it is the same training, and whether it is on the same machine."""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.distributed
import transformers
from pydantic import Field
from torch import Tensor

from r1kit import checkpoint
from r1kit.checkpoint import Checkpoint
from r1kit.schema import CONDUCT, Section
from r1kit.watch import Alarm

METRICS = ("resumed", "resumed_elsewhere", "checkpoint_share")
"""What `Checkpoints.finish` tells of how a training went; none of it belongs to what was made."""


class CheckpointConfig(Section):
    """When a training is saved."""

    checkpoint_every_steps: Annotated[int, CONDUCT] = Field(default=50, gt=0)
    """Steps between checkpoints."""
    checkpoint_max_share: Annotated[float, CONDUCT] = Field(default=0.05, gt=0, le=1)
    """Most of the time that saving may take: where it would take more, checkpoints are left out."""
    checkpoints_kept: Annotated[int, CONDUCT] = Field(default=2, gt=0)
    """How many of the last checkpoints stay on the disk."""


class Checkpoints:
    """The checkpoints of one training, which no other may go on from.

    Args:
        directory: folder that survives kills.
        config: when to save, and how many to keep.
        identity: what makes it this training, as JSON: settings, seed, digests of what it was given.
        say: takes a line for people.
    """

    def __init__(
        self,
        directory: Path,
        config: CheckpointConfig,
        identity: Mapping[str, Any],
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.directory = directory
        self._config = config
        self._identity = json.loads(json.dumps(_flat(identity)))
        self._say = say
        self._started, self._seconds = time.monotonic(), 0.0
        self._told = False
        self._stretches = [{"after_step": 0, "surroundings": surroundings()}]

    def newest(self, total: int) -> Checkpoint | None:
        """The newest whole checkpoint to go on from, of a training of `total` steps.

        Raises:
            ValueError: where it belongs to another training.
        """
        found = checkpoint.latest(self.directory, self._say)
        if found is None:
            return None
        self._refuse_another(found.state["identity"])
        self._stretches = [*found.state["stretches"], {**self._stretches[-1], "after_step": found.step}]
        self._say(f"goes on after step {found.step} of {total}{self._departure()}")
        self._started = time.monotonic()
        return Checkpoint(found.step, found.tensors, found.state["training"])

    def due(self, step: int, total: int) -> bool:
        """Whether to save after a step: every so many, not after the last, and not for more than its share of time.

        Several processes, who must all ask, get the answer of the first.
        """
        if step % self._config.checkpoint_every_steps or step >= total:
            return False
        share = self._config.checkpoint_max_share
        answer = [self._seconds <= share * (time.monotonic() - self._started)]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.broadcast_object_list(answer, src=0)
        if not answer[0] and not self._told:
            self._told = True
            self._say(
                f"leaves checkpoints out: saving has taken {self._seconds:.1f} s, "
                f"more than {100 * share:g} % of the time (checkpoint_max_share)"
            )
        return answer[0]

    def save(
        self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], good_step: int | None = None
    ) -> None:
        """Save after a step; see `checkpoint.save`."""
        before = time.monotonic()
        whole = {"training": dict(state), "identity": self._identity, "stretches": self._stretches}
        checkpoint.save(self.directory, step, tensors, whole, self._config.checkpoints_kept, good_step)
        self._seconds += time.monotonic() - before

    def stop_if_dead(self, step: int, alarm: Alarm | None) -> None:
        """Raise ValueError where an alarm rang after a step, with the newest checkpoint from before its sign."""
        if alarm is not None:
            found = checkpoint.newest(self.directory, step - alarm.steps)
            good = f"the last good checkpoint is {found}" if found else "no checkpoint is from before that"
            raise ValueError(f"stopped after step {step}: {alarm.words}; {good}")

    def finish(self) -> dict[str, float]:
        """Wait for the last save. How often the training was resumed, how often of these in other surroundings, and
        the share of the time that it spent on saving.

        Where `resumed_elsewhere` is not 0, the result is not claimed to be that of an uninterrupted training.
        """
        checkpoint.settle(self.directory)
        share = self._seconds / max(time.monotonic() - self._started, 1e-9)
        values = (float(len(self._stretches) - 1), float(len(self._departures())), share)
        return dict(zip(METRICS, values, strict=True))

    def _departures(self) -> list[tuple[int, str]]:
        """The steps after which the surroundings changed, and what changed, in words."""
        changes = []
        for before, after in zip(self._stretches, self._stretches[1:], strict=False):
            if words := _difference(before["surroundings"], after["surroundings"]):
                changes.append((after["after_step"], words))
        return changes

    def _departure(self) -> str:
        """What to say of the surroundings when going on."""
        changes = self._departures()
        if not changes:
            return ""
        told = "; ".join(f"after step {step} {words}" for step, words in changes)
        return f", not claimed to be bit-exact: {told}"

    def _refuse_another(self, identity: Mapping[str, Any]) -> None:
        if words := _difference(identity, self._identity):
            raise ValueError(
                f"{self.directory} holds checkpoints of another training ({words}): give this one another folder, "
                "or remove that one"
            )


def surroundings() -> dict[str, Any]:
    """What decides in which order numbers are added, and so their last bits."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return {
        "threads": torch.get_num_threads(),
        "processes": torch.distributed.get_world_size() if distributed else 1,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": _processor(),
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def digest_tokens(rows: Iterable[Sequence[Sequence[int]]]) -> str:
    """sha256 over the token ids of rows, each a few sequences, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        for tokens in row:
            digest.update(len(tokens).to_bytes(8, "little"))
            digest.update(np.asarray(tokens, dtype="<i8").tobytes())
    return digest.hexdigest()


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """`threads were 2, now 1`: all that differs."""
    names = dict.fromkeys([*before, *after])
    return ", ".join(
        f"{name} was {before.get(name)}, now {after.get(name)}" for name in names if before.get(name) != after.get(name)
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, their names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
