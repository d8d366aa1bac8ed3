"""A verifier process: one JSON request a line on stdin, one verdict a line on stdout."""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time

_MEMORY_BYTES = 4 << 30


def main() -> None:
    """Answer requests until stdin ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with the parent
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no verdict
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    for line in sys.stdin:
        request = json.loads(line)
        started = time.monotonic()
        try:
            score, reason = verdict(request)
        except (Exception, RecursionError, MemoryError) as error:  # foreign code runs here: its failure is a verdict
            score, reason = 0.0, f"{type(error).__name__}: {error}"[:200]
        channel.write(json.dumps({"score": score, "reason": reason, "seconds": time.monotonic() - started}) + "\n")


def verdict(request: dict) -> tuple[float, str]:
    """Score one answer."""
    kind, answer = request["kind"], request["answer"]
    if answer is None:
        return 0.0, "no single final answer"
    if kind == "gym":
        import reasoning_gym

        score = float(reasoning_gym.get_score_answer_fn(request["meta"]["dataset"])(answer, request["meta"]["entry"]))
        return score, "right" if score >= 1 else "wrong"
    if kind == "choice":
        right = answer.strip().strip("().").upper() == request["gold"].strip().strip("().").upper()
        return float(right), "right" if right else "wrong"
    if kind == "code":
        return run_code(answer, request["tests"], request["deadline"])
    return check_math(answer, request["gold"])


def check_math(answer: str, gold: str) -> tuple[float, str]:
    """Compare mathematically."""
    if answer.strip() == gold.strip():
        return 1.0, "right"
    if len(answer) > 2000 or " or " in answer:
        return 0.0, "hedged or too long"
    from math_verify import parse, verify

    def read(text: str) -> list:
        return parse(f"${text}$", parsing_timeout=None) or parse(text, parsing_timeout=None)

    expected, found = read(gold), read(answer)
    if not expected:
        return 0.0, "the gold answer cannot be parsed"
    right = bool(found) and verify(expected, found, timeout_seconds=None)
    return float(right), "right" if right else "wrong"


def run_code(answer: str, tests: str, deadline: float) -> tuple[float, str]:
    """Run unit tests against an answer in a scratch folder of its own."""
    fence = answer.rpartition("```python")[2].partition("```")[0] if "```python" in answer else answer.strip("`")
    token = os.urandom(8).hex()
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "main.py")
        with open(path, "w") as file:
            file.write(f"{fence}\n\n{tests}\n\nprint('{token}')\n")

        def limit() -> None:
            seconds = max(1, int(deadline))
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        process = subprocess.Popen(
            [sys.executable, "-I", path], cwd=scratch, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True, preexec_fn=limit, env={"PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            return 0.0, "timeout"
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        right = process.returncode == 0 and out.decode(errors="replace").rstrip().endswith(token)
        return float(right), "tests pass" if right else (err.decode(errors="replace").strip().splitlines() or ["fails"])[-1]


if __name__ == "__main__":
    main()
