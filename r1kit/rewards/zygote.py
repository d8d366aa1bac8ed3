"""The process that answers are forked from: it has imported what they may need, and has never seen a test."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import Any, NoReturn

from r1kit.rewards.confine import Limits, Reading, confine, end_with_parent, keep_only

PRELOADED = (
    "bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "heapq",
    "itertools", "math", "operator", "random", "re", "statistics", "string", "sys", "typing",
)  # fmt: skip
_NATURAL_END_SECONDS = 0.02
_MAX_REQUEST_BYTES = 4096


class Zygote:
    """This side of it. One answer at a time.

    Args:
        allowed: the files that answers may read.
        limits: what each of them may use up.
    """

    def __init__(self, allowed: Reading, limits: Limits) -> None:
        self._socket, theirs = socket.socketpair()
        if os.fork() == 0:
            keep_only([theirs.fileno(), *([] if allowed.descriptor is None else [allowed.descriptor])])
            _serve(theirs, allowed, limits)
        theirs.close()

    def start(self, folder: str, modules: list[str], descriptors: list[int]) -> None:
        """Fork an answer.

        Args:
            folder: its working directory, the only one it may write to.
            modules: imported before the fork, once: what takes an answer too long to import by itself.
            descriptors: where its requests come from, and where its replies go.
        """
        request = json.dumps({"folder": folder, "modules": modules}).encode()
        socket.send_fds(self._socket, [request], descriptors)
        self._hear()

    def end(self, wait: bool) -> int:
        """End the answer and all that is left of it.

        Args:
            wait: let it end by itself first, if it is about to.

        Returns:
            Its wait status.
        """
        self._socket.sendall(b"wait" if wait else b"kill")
        return self._hear()

    def _hear(self) -> int:
        reply = self._socket.recv(8)
        if len(reply) != 8:
            raise EOFError("the zygote has ended")
        return int.from_bytes(reply, "big")


def _serve(control: socket.socket, allowed: Reading, limits: Limits) -> NoReturn:
    """Fork and bury answers until the other side is gone."""
    child = 0
    try:
        end_with_parent()
        _import(PRELOADED)
        while True:
            request, descriptors, _, _ = socket.recv_fds(control, _MAX_REQUEST_BYTES, 2)
            if not request:
                break
            if descriptors:
                child = _fork(json.loads(request), descriptors, allowed, limits)
                reply = child
            else:
                reply, child = end(child, wait=request == b"wait"), 0
            control.sendall(reply.to_bytes(8, "big"))
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
        os._exit(0)


def _fork(request: dict[str, Any], descriptors: list[int], allowed: Reading, limits: Limits) -> int:
    _import(request["modules"])
    child = os.fork()
    if child:
        for descriptor in descriptors:
            os.close(descriptor)
        return child
    try:
        from r1kit.rewards.answer import serve

        os.chdir(request["folder"])
        confine(allowed, request["folder"], limits, descriptors)
        serve(*descriptors)
    finally:
        os._exit(1)


def _import(modules: Iterable[str]) -> None:
    wanted = [name for name in modules if name not in sys.modules]
    for name in wanted:
        with contextlib.suppress(ImportError):  # the answer will say so
            importlib.import_module(name)
    if wanted:
        gc.collect()
        gc.freeze()  # forks then share these pages for good


def end(child: int, wait: bool = True) -> int:
    """End a child and all it may have started, and bury it: no zombie stays.

    Args:
        wait: let it end by itself first, if it is about to.

    Returns:
        Its wait status, its own where it ended by itself.
    """
    limit = time.monotonic() + (_NATURAL_END_SECONDS if wait else 0.0)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        if time.monotonic() >= limit:
            break
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def obituary(status: int) -> str:
    """How a process ended that should have said something first."""
    if os.WIFSIGNALED(status):
        return f"crashed ({signal.Signals(os.WTERMSIG(status)).name})"
    return f"ended without a verdict (exit status {os.waitstatus_to_exitcode(status)})"
