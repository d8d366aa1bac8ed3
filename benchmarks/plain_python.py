"""What a program's tests say where both run in one ordinary interpreter: the yardstick for the sandbox's verdicts."""

import json
import os
import signal
import sys
import tempfile
from typing import Any

from r1kit.rows import Problem

_SECONDS = 10


def passes(problem: Problem, program: str) -> bool:
    """Whether the tests end without an exception, in a fork without any walls. For programs that mean no harm."""
    child = os.fork()
    if child == 0:
        _run(program, problem.tests, str(json.loads(problem.meta).get("entry_point", "")))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _run(program: str, tests: str, entry_point: str) -> None:
    status = 1
    try:
        signal.alarm(_SECONDS)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for stream in (0, 1, 2):
                os.dup2(os.open(os.devnull, os.O_RDWR), stream)
            sys.setrecursionlimit(1000)
            space: dict[str, Any] = {"__name__": "program"}
            call = f"\ncheck({entry_point})\n" if entry_point else ""
            exec(compile(program, "program.py", "exec"), space)  # noqa: S102  (that is the point)
            exec(compile(tests + call, "tests.py", "exec"), {**space, "__name__": "tests"})  # noqa: S102
        status = 0
    finally:
        os._exit(status)
