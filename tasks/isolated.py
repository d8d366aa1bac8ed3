"""Running a stage's body in a process of its own, so that several run side by side."""

import contextlib
import ctypes
import dataclasses
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from tasks.stage import StageContext, StageOutput, body_of

_PR_SET_PDEATHSIG = 1


class StageCrashed(RuntimeError):
    """A stage's process failed; the message holds the traceback, or how it died."""


class StageStopped(BaseException):
    """A stage's process was ended because the run ends: no failure of the stage, which goes on in the next run."""


class Processes:
    """The processes of stages that run beside the main one.

    They are forked from a server that has torch loaded, so each starts at once; all end with this process.
    """

    def __init__(self, preload: tuple[str, ...] = ("r1kit.config", "tasks.machine")) -> None:
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__, *preload])
        self._running: set[BaseProcess] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def call(self, stage: str, context: StageContext, threads: int = 1) -> StageOutput:
        """Run a stage's body in a process with so many torch threads; its log and errors come back here.

        Raises ValueError as the body does; StageStopped after `stop`; StageCrashed for anything else.
        """
        receiving, sending = self._context.Pipe(duplex=False)
        silent = dataclasses.replace(context, log=nothing, say=nothing)
        process = self._context.Process(target=_child, args=(stage, silent, threads, sending), name=context.name)
        with self._lock, _without_interrupts():
            if self._stopped:
                raise StageStopped(f"{context.name} was not started: the run is ending")
            process.start()
            self._running.add(process)
        sending.close()
        try:
            return _listen(receiving, context, process)
        except StageCrashed:
            if self._stopped:
                raise StageStopped(f"{context.name} was stopped: the run is ending") from None
            raise
        finally:
            process.kill()
            process.join()
            with self._lock:
                self._running.discard(process)

    def stop(self) -> None:
        """Kill what runs, and start nothing more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started meanwhile does not hear Ctrl-C, which is for the run, not even while it loads torch."""
    resource_tracker.ensure_running()  # it would unblock the signal, were it started later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(receiving: Connection, context: StageContext, process: BaseProcess) -> StageOutput:
    """Pass on what the child says until it is done."""
    while True:
        try:
            kind, *content = receiving.recv()
        except EOFError:
            process.join()
            raise StageCrashed(
                f"the process of {context.name} died ({_death(process.exitcode)}); "
                "run again to go on from its last checkpoint"
            ) from None
        match kind:
            case "log":
                context.log(*content)
            case "say":
                context.say(*content)
            case "done":
                return content[0]
            case "refused":
                raise content[0]
            case "failed":
                raise StageCrashed(content[0])


def _death(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}" + (", perhaps out of memory" if code == -9 else "")


def _child(stage: str, context: StageContext, threads: int, sending: Connection) -> None:
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = os.environ["R1_THREADS"] = str(threads)
    perform(lambda given: body_of(stage).run(given), context, sending)


def perform(
    act: Callable[[StageContext], StageOutput], context: StageContext, sending: Connection, *, quiet: bool = False
) -> bool:
    """Do something for a stage and tell the run's process what it says, and how it ends.

    Args:
        quiet: tell how it ends alone.

    Returns:
        Whether it ended well.
    """
    lock = threading.Lock()

    def send(*message: Any) -> None:
        with lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sending.send(message)

    def log(step: int, total: int, metrics: Mapping[str, float]) -> None:
        send("log", step, total, dict(metrics))

    if not quiet:
        context = dataclasses.replace(context, log=log, say=lambda message: send("say", message))
    try:
        output = act(context)
        send("done", None if quiet else output)
        return True
    except OSError as error:
        send("refused", OSError(error.errno, error.strerror, error.filename) if error.errno else OSError(str(error)))
    except ValueError as error:
        send("refused", ValueError(str(error)))
    except Exception:  # noqa: BLE001 - everything is told to the run's process, which knows what to do with it
        send("failed", traceback.format_exc())
    return False


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies: a killed run leaves nothing behind."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def nothing(*_: Any) -> None:
    """Stands for the callbacks, which cannot be sent to another process."""
