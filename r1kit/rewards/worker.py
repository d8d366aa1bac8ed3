"""A verifier process: imports one verifier once, then judges in confined forks of itself.

It reads chunks of payloads, one JSON list a line, and answers with one JSON line a verdict: score, reason, seconds.
A fork judges the payloads in order; when it crashes, hangs or misbehaves, the payload at hand gets a verdict that says
so, and a fresh fork goes on with the next: milliseconds, where a new process would import for seconds. A program gets
two processes of its own, one for its tests and one for itself (`trial`, `answer`). All end with the worker, and the
worker with its parent: stdin then ends, and forks are bound to it by the kernel.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import select
import sys
import time
from types import ModuleType
from typing import Any, NoReturn, Protocol

from r1kit.rewards import gym, math, trial
from r1kit.rewards.confine import Limits, Reading, confine, library_files, reading
from r1kit.rewards.scratch import overflows, remove
from r1kit.rewards.zygote import Zygote, end, obituary

_VERIFIERS: dict[str, ModuleType] = {"math": math, "gym": gym}
_MEMORY_BYTES = {"math": 1 << 30, "code": 512 << 20, "gym": 1 << 30}
_MAX_LINE_BYTES = 4096
_LOOK_SECONDS = 0.03
_AGAIN = b'"again"'
_GONE = ""
_SLOW_IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]+numpy\b", re.MULTILINE)


class Judge(Protocol):
    """One kind of verdicts."""

    def failed_imports(self) -> str:
        """Why this kind cannot be verified here; empty if it can."""
        ...

    def serve(self, payloads: list[dict[str, Any]]) -> None:
        """Reply with a verdict for each payload, in order."""
        ...


class Pipes:
    """The line to the process that asks for verdicts."""

    def __init__(self) -> None:
        self.requests, self.replies = os.dup(0), os.dup(1)
        for stream in (0, 1, 2):  # what libraries and models print goes nowhere
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        self._input = b""
        self._parent = os.getppid()

    def say(self, what: Any) -> None:
        """Write one line to the parent."""
        data = json.dumps(what).encode() + b"\n"
        while data:
            data = data[os.write(self.replies, data) :]

    def next_line(self) -> bytes:
        """The next chunk; EOFError once there will be none."""
        parts = [self._input]
        while b"\n" not in parts[-1]:
            ready = select.select([self.requests], [], [], 1.0)[0]
            part = os.read(self.requests, 1 << 20) if ready else None
            if part == b"" or os.getppid() != self._parent:
                raise EOFError
            parts.append(part or b"")
        line, _, self._input = b"".join(parts).partition(b"\n")
        return line


class Forks:
    """Mathematics and reasoning-gym: a confined fork judges as many payloads as it survives."""

    def __init__(self, kind: str, deadline_seconds: float, pipes: Pipes) -> None:
        self._verifier = _VERIFIERS[kind]
        self._memory_bytes = _MEMORY_BYTES[kind]
        self._deadline = deadline_seconds
        self._pipes = pipes
        self._allowed = reading(None)

    def failed_imports(self) -> str:
        """Why this kind cannot be verified here; empty if it can."""
        try:
            self._verifier.load({"dataset": "chain_sum"})
        except ImportError as error:
            return str(error)
        return ""

    def serve(self, payloads: list[dict[str, Any]]) -> None:
        """Reply with a verdict for each payload, in order."""
        waiting, loaded = list(payloads), 0
        while waiting:
            while loaded < len(waiting):
                try:
                    self._verifier.load(waiting[loaded])
                except Exception as error:  # noqa: BLE001  (a data set the library does not know or cannot build)
                    if loaded == 0:
                        self._pipes.say((0.0, f"cannot be verified: {type(error).__name__}: {error}"[:200], 0.0))
                        del waiting[0]
                    break
                loaded += 1
            if loaded:
                answered = self._fork(waiting[:loaded])
                loaded -= answered
                del waiting[:answered]

    def _fork(self, payloads: list[dict[str, Any]]) -> int:
        """Judge payloads in one fork, as far as it gets.

        Returns:
            How many have their verdict, at least one.
        """
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            limits = Limits(self._memory_bytes, self._deadline * len(payloads))
            _judge_all(self._verifier, payloads, writer, self._allowed, limits)
        os.close(writer)
        started, answered, failure = time.monotonic(), 0, ""
        try:
            answered, failure, started = self._watch(reader, len(payloads))
        finally:
            status = end(child)
            os.close(reader)
        if failure is not None:
            self._pipes.say((0.0, failure or obituary(status), time.monotonic() - started))
            answered += 1
        return answered

    def _watch(self, reader: int, wanted: int) -> tuple[int, str | None, float]:
        """Pass the fork's verdicts on.

        Returns:
            How many; why there is none for the next payload (empty: the fork is gone; None: a fresh one should try);
            since when it ran.
        """
        buffer, answered, started = b"", 0, time.monotonic()
        while answered < wanted:
            left = max(0.0, started + self._deadline - time.monotonic())
            ready = select.select([reader, self._pipes.requests], [], [], left)[0]
            if self._pipes.requests in ready:
                raise EOFError  # nothing is sent while a chunk is judged: the parent has ended
            if not ready:
                return answered, f"no verdict within {self._deadline:g} s", started
            part = os.read(reader, 65536)
            if not part:
                return answered, _GONE, started
            *lines, buffer = (buffer + part).split(b"\n")
            for line in lines:
                if line == _AGAIN and answered:
                    return answered, None, started
                verdict = _read(line)
                if verdict is None or answered == wanted:
                    return answered, "a forged verdict", started
                now = time.monotonic()
                self._pipes.say((*verdict, now - started))
                answered, started = answered + 1, now
            if len(buffer) > _MAX_LINE_BYTES:
                return answered, "a forged verdict", started
        return answered, None, started


class Trials:
    """Programs: one process for the tests, one for the answer, and this one to watch them."""

    def __init__(self, deadline_seconds: float, pipes: Pipes, scratch: str) -> None:
        self._deadline = deadline_seconds
        self._pipes = pipes
        self._scratch = scratch
        self._folder, self._count = "", 0
        self._limits = Limits(_MEMORY_BYTES["code"], deadline_seconds)
        library = library_files()
        self._allowed = reading(library)
        self._zygote = Zygote(reading((*library, scratch)), self._limits)

    def failed_imports(self) -> str:
        """Nothing is imported that could be missing."""
        return ""

    def serve(self, payloads: list[dict[str, Any]]) -> None:
        """Reply with a verdict for each payload, in order."""
        for payload in payloads:
            folder, started = self._empty_folder(), time.monotonic()
            self._pipes.say((*self._try(payload, folder), time.monotonic() - started))

    def _empty_folder(self) -> str:
        """A folder with nothing in it: the last one if its program left nothing there, as most do."""
        if not self._folder or os.listdir(self._folder):
            if self._folder:
                remove(self._folder)
            self._count += 1
            self._folder = os.path.join(self._scratch, str(self._count))
            os.mkdir(self._folder, 0o700)
        return self._folder

    def _try(self, payload: dict[str, Any], folder: str) -> tuple[float, str]:
        verdicts, requests, replies = os.pipe(), os.pipe(), os.pipe()
        slow = ["numpy"] if _SLOW_IMPORT.search(payload["answer"]) else []
        self._zygote.start(folder, slow, [requests[0], replies[1]])
        os.close(requests[0])
        os.close(replies[1])
        child = os.fork()
        if child == 0:
            _hold_trial(payload, requests[1], replies[0], verdicts[1], self._allowed, self._limits)
        for descriptor in (verdicts[1], requests[1], replies[0]):
            os.close(descriptor)
        score, reason = 0.0, _GONE
        try:
            score, reason = self._watch(verdicts[0], folder)
        finally:
            tests_ended = end(child, wait=reason == _GONE)
            answer_ended = self._zygote.end(wait=reason == _GONE)
            os.close(verdicts[0])
        return score, reason or obituary(answer_ended if os.waitstatus_to_exitcode(tests_ended) == 0 else tests_ended)

    def _watch(self, verdicts: int, folder: str) -> tuple[float, str]:
        """The verdict, or why there is none; no reason where one of the two processes is gone."""
        started = time.monotonic()
        while True:
            left = started + self._deadline - time.monotonic()
            ready = select.select([verdicts, self._pipes.requests], [], [], max(0.0, min(left, _LOOK_SECONDS)))[0]
            if self._pipes.requests in ready:
                raise EOFError  # nothing is sent while a chunk is judged: the parent has ended
            if ready:
                return _read(os.read(verdicts, _MAX_LINE_BYTES)) or (0.0, _GONE)
            if left <= 0:
                return 0.0, f"no verdict within {self._deadline:g} s"
            if overflows(folder):
                return 0.0, "too much written to the scratch folder"


def main(kind: str, deadline_seconds: float, scratch: str) -> None:
    """Serve one kind of verdicts until stdin ends."""
    pipes = Pipes()
    judge: Judge = Trials(deadline_seconds, pipes, scratch) if kind == "code" else Forks(kind, deadline_seconds, pipes)
    try:
        with contextlib.suppress(EOFError, BrokenPipeError):
            pipes.say(judge.failed_imports())
            gc.collect()
            gc.freeze()  # forks then share these pages for good
            while True:
                judge.serve(json.loads(pipes.next_line()))
    finally:
        remove(scratch)


def _judge_all(
    verifier: ModuleType, payloads: list[dict[str, Any]], writer: int, allowed: Reading, limits: Limits
) -> NoReturn:
    """The confined half of `Forks`: judge payloads in order, write a line for each."""
    try:
        confine(allowed, "", limits, [writer])
        for payload in payloads:
            try:
                score, reason = verifier.judge(payload)
            except BaseException as error:  # noqa: BLE001  (foreign code ran on a model's output)
                os.write(writer, _line(0.0, _failure(error)) + _AGAIN + b"\n")
                break
            os.write(writer, _line(score, reason))
    finally:
        os._exit(0)


def _hold_trial(
    payload: dict[str, Any], requests: int, replies: int, verdicts: int, allowed: Reading, limits: Limits
) -> NoReturn:
    """The confined half of `Trials`: run the tests, write one verdict."""

    def give_up(reason: str) -> NoReturn:
        os.write(verdicts, _line(0.0, reason))
        os._exit(0)

    status = 1
    try:
        confine(allowed, "", limits, [requests, replies, verdicts])
        os.write(verdicts, _line(*trial.judge(payload, trial.Answer(requests, replies, give_up))))
        status = 0
    finally:
        os._exit(status)


def _line(score: float, reason: str) -> bytes:
    return json.dumps([score, reason[:200]]).encode() + b"\n"


def _read(line: bytes) -> tuple[float, str] | None:
    """A fork's verdict; None if it is none."""
    try:
        score, reason = json.loads(line)
        return float(score), str(reason)
    except (ValueError, TypeError):
        return None


def _failure(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"cannot be judged: {type(error).__name__}"


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
