"""Running a stage's body in several processes at once, which a launcher starts: torchrun, or DeepSpeed's."""

import contextlib
import dataclasses
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tasks.isolated import StageCrashed, end_with_parent, nothing
from tasks.stage import StageContext, StageOutput
from tasks.workspace import REPOSITORY

if TYPE_CHECKING:
    from r1kit.config import Config

Launcher = Literal["torchrun", "deepspeed"]
DOOR = "R1_DOOR"
"""Environment variable: where the run's process listens, and the word that lets a rank in."""
LOG = "ranks.log"
"""In the stage's work directory: all that launcher and ranks print."""
MODELLING = frozenset(
    {"base", "zero", "cold_start", "reason", "reject", "refine", "reward_models", "prefer", "distill", "rl_student",
     "evaluate"}
)  # fmt: skip
"""Stages that train or sample a model."""
_WORD_BYTES = 32
_HELLO_SECONDS = 5.0
_BLAME_SECONDS = 1.5  # a rank that dies makes the others fail a moment later, or they say so a moment before
_END_SECONDS = 20.0


def launched(stage: str, config: "Config") -> bool:
    """Whether a launcher starts the processes of a stage."""
    return config.runtime.launched and stage in MODELLING


def launch(
    stage: str, context: StageContext, *, processes: int, launcher: Launcher = "torchrun", threads: int = 1
) -> StageOutput:
    """Run a stage's body in several processes, its ranks; rank 0's log, words and output come back here.

    The first rank that fails ends all; so does anything that ends this call, Ctrl-C for one.

    Args:
        processes: how many ranks.
        threads: torch threads of each.

    Raises:
        ValueError: as the body does.
        OSError: as the body does.
        StageCrashed: where a rank fails in another way, dies, or the launcher does; the last line is a sentence.
    """
    word = secrets.token_bytes(_WORD_BYTES)
    with socket.create_server(("127.0.0.1", 0)) as door, tempfile.TemporaryDirectory(prefix="r1-ranks-") as scratch:
        port = door.getsockname()[1]
        environment = os.environ | {
            DOOR: f"{port} {word.hex()}",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "TMPDIR": scratch,  # launchers that are killed leave files behind
            "OMP_NUM_THREADS": str(threads),
            "R1_THREADS": str(threads),
        }
        log = context.workdir / LOG
        with log.open("ab") as stream:
            process = subprocess.Popen(
                _command(launcher, processes),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,  # Ctrl-C is for the run, which then ends the ranks itself
                preexec_fn=end_with_parent,
            )
        ranks = _Ranks(context, processes, log)
        try:
            return ranks.attend(stage, door, word, process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            ranks.close()


def _command(launcher: Launcher, processes: int) -> list[str]:
    if launcher == "torchrun":
        return [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
            "-m", "tasks.rank",
        ]  # fmt: skip
    return [
        sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", str(processes),
        "--master_port", str(_free_port()), "--no_local_rank", "--module", "tasks.rank",
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class _Ranks:
    """The ranks of one launch, as far as they have come in."""

    context: StageContext
    expected: int
    log: Path
    connections: dict[Connection, int] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    died: list[int] = field(default_factory=list)
    """Gone without a word."""
    failures: list[tuple[int, Exception]] = field(default_factory=list)
    output: StageOutput | None = None

    def attend(self, stage: str, door: socket.socket, word: bytes, launcher: "subprocess.Popen[bytes]") -> StageOutput:
        """Let ranks in and listen to them until all are done. Raises as `launch` does."""
        silent = dataclasses.replace(self.context, log=nothing, say=nothing)

        def listen(seconds: float) -> bool:
            return self._listen(stage, silent, door, word, seconds)

        while len(self.finished) < self.expected and not (self.died or self.failures):
            if not listen(0.5) and launcher.poll() is not None:
                raise StageCrashed(self._sentence(f"the launcher ended (exit code {launcher.returncode})"))
        if self.died or self.failures:
            self._blame(listen)
        with contextlib.suppress(subprocess.TimeoutExpired):
            launcher.wait(_END_SECONDS)  # by itself it tidies up
        assert self.output is not None, "rank 0 is among those that are done"
        return self.output

    def close(self) -> None:
        """Hang up."""
        for connection in self.connections:
            connection.close()

    def _listen(self, stage: str, context: StageContext, door: socket.socket, word: bytes, seconds: float) -> bool:
        """Take in what has come. Says whether anything has."""
        ready = wait([door, *self.connections], seconds)
        for source in ready:
            if isinstance(source, Connection):
                self._hear(source)
            elif (found := _let_in(door, word)) is not None:
                rank, connection = found
                self.connections[connection] = rank
                connection.send((stage, context))
        return bool(ready)

    def _hear(self, connection: Connection) -> None:
        rank = self.connections[connection]
        try:
            kind, *content = connection.recv()
        except (EOFError, OSError):
            del self.connections[connection]
            connection.close()
            if rank not in self.finished:
                self.died.append(rank)
            return
        match kind:
            case "log":
                self.context.log(*content)
            case "say":
                self.context.say(*content)
            case "done":
                self.finished.add(rank)
                self.output = content[0] if rank == 0 else self.output
            case "refused":
                self.failures.append((rank, content[0]))
            case "failed":
                last = content[0].strip().splitlines()[-1]
                sentence = self._sentence(f"rank {rank} of {self.expected} failed: {last}")
                self.failures.append((rank, StageCrashed(f"{content[0]}\n{sentence}")))

    def _blame(self, listen: Callable[[float], bool]) -> None:
        """Raise for the rank that was the first to go wrong: one that died, if any did, for the others feel it."""
        deadline = time.monotonic() + _BLAME_SECONDS
        while not self.died and (left := deadline - time.monotonic()) > 0:
            listen(left)
        if self.died:
            raise StageCrashed(
                self._sentence(
                    f"rank {self.died[0]} of {self.expected} died without a word, as when killed or out of memory; "
                    "run again to go on from the last checkpoint"
                )
            )
        raise self.failures[0][1]

    def _sentence(self, what: str) -> str:
        return f"{what} (what they printed is in {self.log})"


def _let_in(door: socket.socket, word: bytes) -> tuple[int, Connection] | None:
    """The next to knock, if it knows the word: its rank, and the way to it. Nothing is unpickled from others."""
    with contextlib.suppress(OSError, EOFError, ValueError):
        caller, _ = door.accept()
        connection = Connection(caller.detach())
        if connection.poll(_HELLO_SECONDS):
            given, _, rank = connection.recv_bytes(2 * _WORD_BYTES + 16).partition(b" ")
            if secrets.compare_digest(given, word.hex().encode()):
                return int(rank), connection
        connection.close()
    return None
