"""Worker processes that verify answers, each killable, with a deadline for every verdict."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from r1kit import chat
from r1kit.rewards.verdict import Verdict
from r1kit.rows import Problem


class VerifierPool:
    """Verifies completions in processes of their own; a crash or a timeout is a verdict, not an exception."""

    def __init__(self, workers: int = 1, deadline_seconds: float = 5.0) -> None:
        self._size = workers
        self._deadline = deadline_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def __enter__(self) -> "VerifierPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def verify(
        self, problems: Sequence[Problem], completions: Sequence[str], opens_think: bool = False
    ) -> list[Verdict]:
        """A verdict for each completion, in order."""
        return [
            self._ask(_request(problem, completion, opens_think, self._deadline))
            for problem, completion in zip(problems, completions, strict=True)
        ]

    def _ask(self, request: dict[str, Any]) -> Verdict:
        first = self._process is None
        process = self._start()
        assert process.stdin and process.stdout
        started = time.monotonic()
        deadline = self._deadline + (30.0 if first else 1.0)  # the first verdict pays for imports
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            self._stop()
            return Verdict(0.0, "crash", time.monotonic() - started)
        while b"\n" not in self._buffer:
            left = started + deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                self._stop()
                return Verdict(0.0, "timeout", time.monotonic() - started)
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                self._stop()
                return Verdict(0.0, "crash", time.monotonic() - started)
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return Verdict(**json.loads(line))

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._buffer = b""
            self._process = subprocess.Popen(
                [sys.executable, "-m", "r1kit.rewards.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
            self._process = None


def _request(problem: Problem, completion: str, opens_think: bool, deadline: float) -> dict[str, Any]:
    if problem.verifier == "code":
        answer = chat.parse(completion, opens_think).summary
    else:
        answer = chat.final_answer(completion, opens_think)
    return {
        "kind": problem.verifier, "answer": answer, "gold": problem.answer, "tests": problem.tests,
        "meta": json.loads(problem.meta), "deadline": deadline,
    }  # fmt: skip


def gold_response(problem: Problem) -> str:
    """What a perfect model would say."""
    answer = f"```python\n{problem.solution}\n```" if problem.verifier == "code" else problem.answer
    return chat.response("", answer)


def check_gold(pool: VerifierPool, problems: Sequence[Problem]) -> list[Verdict]:
    """Verdicts on the gold answers: a row whose own gold fails cannot be verified."""
    return pool.verify(problems, [gold_response(problem) for problem in problems])
