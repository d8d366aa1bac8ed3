"""A pool of worker processes that verify answers, each verdict within a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from r1kit import chat
from r1kit.rewards import choice, code, gym, math
from r1kit.rewards.scratch import remove
from r1kit.rewards.verdict import Verdict

if TYPE_CHECKING:
    from types import TracebackType

    from r1kit.rows import Problem

_START_SECONDS = 120.0
_GRACE_SECONDS = 3.0
_MAX_CHUNK = 256
_WORKERS = {"debug": "code"}
_INHERITED = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "MPLCONFIGDIR", "VIRTUAL_ENV")


class VerifierPool:
    """Verifies completions in processes of their own; a crash or a timeout is a verdict, not an exception.

    Workers start when first needed, stay warm, and end with the pool or with this process, however that ends. Not for
    use from several threads at once.

    Args:
        workers: processes a kind of verifier.
        deadline_seconds: wall time for one verdict.
    """

    def __init__(self, workers: int = 1, deadline_seconds: float = 5.0) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        if deadline_seconds <= 0:
            raise ValueError(f"deadline_seconds must be above 0, not {deadline_seconds}")
        self._num_workers = workers
        self.deadline_seconds = deadline_seconds
        self.waited_seconds = 0.0
        """Wall time that `verify` has spent waiting for workers, all calls together."""
        self._workers: dict[str, list[_Worker]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers. The pool can be used again; they then start anew."""
        for worker in [worker for workers in self._workers.values() for worker in workers]:
            worker.stop()
        self._workers.clear()

    def verify(
        self, problems: Sequence[Problem], completions: Sequence[str], opens_think: bool = False
    ) -> list[Verdict]:
        """A verdict for each completion, in order.

        Args:
            problems: what each completion answers; a problem may stand there many times.
            completions: what the model wrote.
            opens_think: the chat template already wrote `<think>` into the prompt.

        Raises:
            ValueError: for a problem without a verifier, or one whose `meta` is not what its verifier needs.
            RuntimeError: if a verifier cannot be started at all.
        """
        verdicts: list[Verdict | None] = []
        work: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for problem, completion in zip(problems, completions, strict=True):
            prepared = _prepare(problem, completion, opens_think)
            if isinstance(prepared, Verdict):
                verdicts.append(prepared)
            else:
                work.setdefault(_WORKERS.get(problem.verifier, problem.verifier), []).append((len(verdicts), prepared))
                verdicts.append(None)
        for kind, items in work.items():
            for place, verdict in self._run(kind, items):
                verdicts[place] = verdict
        return [verdict for verdict in verdicts if verdict is not None]

    def _run(self, kind: str, items: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, Verdict]]:
        """Judge payloads on this kind's workers, chunk by chunk."""
        workers = self._workers.setdefault(kind, [])
        while len(workers) < min(self._num_workers, len(items)):
            workers.append(_Worker(kind, self.deadline_seconds))
        share = -(-len(items) // (len(workers) * (1 if len(workers) == 1 else 4)))
        waiting, done = deque(items), []
        size = min(_MAX_CHUNK, share)
        try:
            while waiting or any(worker.pending for worker in workers):
                for worker in workers:
                    if waiting and not worker.pending:
                        worker.send([waiting.popleft() for _ in range(min(size, len(waiting)))])
                busy = [worker for worker in workers if worker.pending]
                started = time.monotonic()
                ready = select.select([worker.output for worker in busy], [], [], 1.0)[0]
                self.waited_seconds += time.monotonic() - started
                for worker in busy:
                    done += worker.receive() if worker.output in ready else worker.overdue()
        except BaseException:
            self.close()  # Ctrl-C amid a chunk: its replies must not be taken for those of the next
            raise
        return done


@dataclass
class _Worker:
    """This side of one worker process."""

    kind: str
    deadline: float
    pending: deque[tuple[int, dict[str, Any]]] = field(default_factory=deque)
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    deaths: int = 0
    heard: float = 0.0
    buffer: bytes = b""
    scratch: str = ""

    @property
    def output(self) -> int:
        """The descriptor its replies come from."""
        assert self.process and self.process.stdout
        return self.process.stdout.fileno()

    def send(self, items: list[tuple[int, dict[str, Any]]]) -> None:
        """Hand it a chunk; the process is started, or replaced where it has ended in the meantime."""
        self.pending = deque(items)
        if self.process is not None and self.process.poll() is not None:
            self.stop()
        if self.process is None:
            self._start()
        assert self.process and self.process.stdin
        self.heard = time.monotonic()
        try:
            self.process.stdin.write(json.dumps([payload for _, payload in items]).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it died just now: `receive` finds out, and sends the chunk again

    def receive(self) -> list[tuple[int, Verdict]]:
        """The verdicts that have come in."""
        part = os.read(self.output, 1 << 20)
        if not part:
            return self._died()
        self.heard = time.monotonic()
        self.buffer += part
        *lines, self.buffer = self.buffer.split(b"\n")
        done = []
        for line in lines:
            reply = json.loads(line)
            if not self.ready:
                self.ready = True
                if reply:
                    raise RuntimeError(f"the {self.kind} verifier cannot start: {reply}")
                continue
            done.append((self.pending.popleft()[0], Verdict(*reply)))
            self.deaths = 0
        return done

    def overdue(self) -> list[tuple[int, Verdict]]:
        """End a worker that should have cut off its own fork long ago."""
        allowed = self.deadline * 2 + 10 if self.ready else _START_SECONDS
        if time.monotonic() - self.heard <= allowed:
            return []
        if not self.ready:
            raise RuntimeError(f"the {self.kind} verifier did not start within {_START_SECONDS:.0f} s")
        return self._died()

    def _died(self) -> list[tuple[int, Verdict]]:
        """Start anew with what is left. The payload at hand is tried once more: it may be innocent."""
        started = self.ready
        self.stop()
        self.deaths += 1
        done = []
        if self.deaths > 1:
            if not started:
                raise RuntimeError(f"the {self.kind} verifier ends as soon as it is started")
            done.append((self.pending.popleft()[0], Verdict(0.0, "the verifier crashed", self.deadline)))
            self.deaths = 0
        if self.pending:
            self.send(list(self.pending))
        return done

    def _start(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {
            "PYTHONPATH": root, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
        }  # fmt: skip
        self.buffer, self.ready = b"", False
        self.scratch = tempfile.mkdtemp(prefix="r1kit-")
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", "r1kit.rewards.worker", self.kind, str(self.deadline),
             self.scratch],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=environment,
        )  # fmt: skip

    def stop(self) -> None:
        """End the process, and wait for it; its forks are bound to it.

        It ends by itself when its input does, and clears its scratch folder away; else it is killed.
        """
        if self.process is None:
            return
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_GRACE_SECONDS if self.ready else 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            with contextlib.suppress(BrokenPipeError):  # what was still buffered is of no use to a dead process
                stream.close()
        self.process = None
        remove(self.scratch)


def _prepare(problem: Problem, completion: str, opens_think: bool) -> Verdict | dict[str, Any]:
    """The payload for a worker, or at once the verdict where reading the text is enough."""
    if problem.verifier in ("code", "debug"):
        return _prepare_code(problem, completion, opens_think)
    answer = chat.final_answer(completion, opens_think)
    if answer is None:
        return Verdict(0.0, "no single final answer", 0.0)
    if problem.verifier == "choice":
        return Verdict(*choice.judge(answer, problem.answer), 0.0)
    if problem.verifier == "math":
        verdict = math.judge_in_place(answer, problem.answer)
        return {"answer": answer, "gold": problem.answer} if verdict is None else Verdict(*verdict, 0.0)
    if problem.verifier == "gym":
        if len(answer) > gym.MAX_CHARACTERS:
            return Verdict(0.0, "the answer is too long", 0.0)
        meta = _meta(problem)
        if not isinstance(meta.get("dataset"), str) or not isinstance(meta.get("entry"), dict):
            raise ValueError(f"problem {problem.id}: meta must hold 'dataset' and 'entry' for the gym verifier")
        return {"answer": answer, "dataset": meta["dataset"], "entry": meta["entry"]}
    raise ValueError(f"problem {problem.id}: verifier {problem.verifier!r} verifies nothing; a reward model judges it")


def _prepare_code(problem: Problem, completion: str, opens_think: bool) -> Verdict | dict[str, Any]:
    if not problem.tests.strip():
        return Verdict(0.0, "the problem has no tests", 0.0)
    parsed = chat.parse(completion, opens_think)
    text = parsed.answer if parsed.answer is not None else "" if "<answer>" in completion else parsed.summary
    program = code.program(text)
    if program is None:
        return Verdict(0.0, "no single program", 0.0)
    if len(program) > code.MAX_CHARACTERS:
        return Verdict(0.0, "the program is too long", 0.0)
    return {
        "answer": program, "tests": problem.tests, "entry_point": str(_meta(problem).get("entry_point", "")),
        "tests_shown": problem.verifier == "debug",
    }  # fmt: skip


def _meta(problem: Problem) -> dict[str, Any]:
    try:
        meta = json.loads(problem.meta)
    except ValueError as error:
        raise ValueError(f"problem {problem.id}: meta is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise ValueError(f"problem {problem.id}: meta must be a JSON object")
    return meta
