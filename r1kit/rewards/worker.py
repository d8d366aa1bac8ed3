"""A verifier process: imports one verifier once, then judges in confined forks of itself.

It reads chunks of payloads, one JSON list a line, and answers with one JSON line a verdict: score, reason, seconds.
A fork judges the payloads in order; when it crashes, hangs or misbehaves, the payload at hand gets a verdict that says
so, and a fresh fork goes on with the next: milliseconds, where a new process would import for seconds. Programs get a
fork each. The process ends with its parent: stdin then ends, and forks are bound to it by the kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from r1kit.rewards import code, gym, math
from r1kit.rewards.confine import confine, end_with_parent

_VERIFIERS: dict[str, ModuleType] = {"math": math, "code": code, "gym": gym}
_MEMORY_BYTES = {"math": 1 << 30, "code": 512 << 20, "gym": 1 << 30}
_MAX_LINE_BYTES = 4096
_AGAIN = b'"again"'
_ENDED = "ended"


def main(kind: str, deadline_seconds: float) -> None:
    """Serve one kind of verdicts until stdin ends."""
    requests, replies = os.dup(0), os.dup(1)
    for stream in (0, 1, 2):  # what libraries and models print goes nowhere
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)
    server = _Server(kind, deadline_seconds, requests, replies)
    parent = os.getppid()
    with contextlib.suppress(EOFError, BrokenPipeError):
        server.say(server.failed_imports())
        while True:
            server.serve(json.loads(server.next_line(parent)))


class _Server:
    """The unconfined half: reads chunks, forks, watches, replies."""

    def __init__(self, kind: str, deadline_seconds: float, requests: int, replies: int) -> None:
        self._kind = kind
        self._verifier = _VERIFIERS[kind]
        self._deadline = deadline_seconds
        self._requests = requests
        self._replies = replies
        self._input = b""

    def failed_imports(self) -> str:
        """Why this kind cannot be verified here; empty if it can."""
        try:
            self._verifier.load({"dataset": "chain_sum"})
        except ImportError as error:
            return str(error)
        return ""

    def say(self, what: Any) -> None:
        """Write one line to the parent."""
        data = json.dumps(what).encode() + b"\n"
        while data:
            data = data[os.write(self._replies, data) :]

    def next_line(self, parent: int) -> bytes:
        """The next chunk; EOFError once there will be none."""
        while b"\n" not in self._input:
            ready = select.select([self._requests], [], [], 1.0)[0]
            part = os.read(self._requests, 1 << 20) if ready else None
            if part == b"" or os.getppid() != parent:
                raise EOFError
            self._input += part or b""
        line, _, self._input = self._input.partition(b"\n")
        return line

    def serve(self, payloads: list[dict[str, Any]]) -> None:
        """Reply with a verdict for each payload, in order."""
        waiting, loaded = list(payloads), 0
        while waiting:
            while loaded < len(waiting) and (loaded == 0 or self._kind != "code"):
                try:
                    self._verifier.load(waiting[loaded])
                except Exception as error:  # noqa: BLE001  (a data set the library does not know or cannot build)
                    if loaded == 0:
                        self.say((0.0, f"cannot be verified: {type(error).__name__}: {error}"[:200], 0.0))
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
        tokens = [secrets.token_hex(8) for _ in payloads]
        scratch = tempfile.mkdtemp(prefix="r1kit-") if self._kind == "code" else ""
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            for descriptor in (reader, self._requests, self._replies):
                os.close(descriptor)
            _judge_all(self._kind, payloads, tokens, writer, scratch, self._deadline)
        os.close(writer)
        started, answered, failure = time.monotonic(), 0, ""
        try:
            answered, failure, started = self._watch(reader, tokens)
        finally:
            status = _end(child)
            os.close(reader)
            if scratch:
                shutil.rmtree(scratch, ignore_errors=True)
        if failure:
            reason = failure if failure != _ENDED else _obituary(status)
            self.say((0.0, reason, time.monotonic() - started))
        return answered + bool(failure)

    def _watch(self, reader: int, tokens: list[str]) -> tuple[int, str, float]:
        """Pass the fork's verdicts on.

        Returns:
            How many; why there is none for the next payload (empty if a fresh fork should try); since when it ran.
        """
        buffer, answered, started = b"", 0, time.monotonic()
        while answered < len(tokens):
            left = max(0.0, started + self._deadline - time.monotonic())
            ready = select.select([reader, self._requests], [], [], left)[0]
            if self._requests in ready:
                raise EOFError  # nothing is sent while a chunk is judged: the parent has ended
            if not ready:
                return answered, f"no verdict within {self._deadline:g} s", started
            part = os.read(reader, 65536)
            buffer += part
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                if line == _AGAIN and answered:
                    return answered, "", started
                if answered == len(tokens):
                    break
                verdict = _read(line, tokens[answered])
                if verdict is None:
                    return answered, "a forged verdict", started
                now = time.monotonic()
                self.say((*verdict, now - started))
                answered, started = answered + 1, now
            if len(buffer) > _MAX_LINE_BYTES:
                return answered, "a forged verdict", started
            if not part:
                break
        return answered, _ENDED if answered < len(tokens) else "", started


def _judge_all(
    kind: str, payloads: list[dict[str, Any]], tokens: list[str], writer: int, scratch: str, deadline: float
) -> None:
    """The confined half: judge payloads in order, write a line for each, and never return."""
    try:
        os.setsid()
        end_with_parent()
        if scratch:
            os.chdir(scratch)
        confine(scratch, _MEMORY_BYTES[kind], deadline * len(payloads), hide_frames=kind == "code")
        for payload, token in zip(payloads, tokens, strict=True):
            try:
                if kind == "code":
                    score, reason = code.judge(payload, _announcer(writer, token))
                else:
                    score, reason = _VERIFIERS[kind].judge(payload)
            except BaseException as error:  # noqa: BLE001  (foreign code ran on a model's output)
                os.write(writer, _line("", 0.0, _failure(error)) + _AGAIN + b"\n")
                break
            os.write(writer, _line(token if score else "", score, reason))
    finally:
        os._exit(0)


def _announcer(writer: int, token: str) -> Callable[[], None]:
    """Writes the good verdict, without anything that judged code could have exchanged."""
    write, line = os.write, _line(token, 1.0, "all tests pass")

    def passed() -> None:
        write(writer, line)

    return passed


def _line(token: str, score: float, reason: str) -> bytes:
    return json.dumps([token, score, reason[:200]]).encode() + b"\n"


def _read(line: bytes, token: str) -> tuple[float, str] | None:
    """A fork's verdict; None if it is none, or claims a score without its token."""
    try:
        given, score, reason = json.loads(line)
        score, reason = float(score), str(reason)
    except (ValueError, TypeError):
        return None
    genuine = score == 0.0 or (isinstance(given, str) and secrets.compare_digest(given, token))
    return (score, reason) if genuine else None


def _failure(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"cannot be judged: {type(error).__name__}"


def _end(child: int) -> int:
    """End a fork and all it may have started, and wait for it: no zombie stays.

    Returns:
        Its wait status, its own where it ended by itself.
    """
    for _ in range(20):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _obituary(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"crashed ({signal.Signals(os.WTERMSIG(status)).name})"
    return f"ended without a verdict (exit status {os.waitstatus_to_exitcode(status)})"


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
