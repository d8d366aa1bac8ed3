"""What the tests of the rewards share: problems, responses, the processes a pool has started, real data."""

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1kit import chat
from r1kit.rewards import Verdict, VerifierPool
from r1kit.rows import Problem

REPOSITORY = Path(__file__).resolve().parents[3]


def problem(verifier: str, answer: str = "", **more: Any) -> Problem:
    """A problem whose other fields do not matter."""
    fields = {"id": "p/0", "source": "p", "licence": "MIT", "prompt": "?"}
    return Problem.model_validate({**fields, "verifier": verifier, "answer": answer, **more})


def coded(tests: str, entry_point: str = "") -> Problem:
    """A programming problem."""
    return problem("code", tests=tests, meta=json.dumps({"entry_point": entry_point}))


def gym_problem(dataset: str, answer: str) -> Problem:
    """A problem of reasoning-gym, with as much of its entry as the scorers of `chain_sum` and `countdown` read."""
    entry = {"question": "?", "answer": answer, "metadata": {"numbers": [1, 2, 3], "target": 0}}
    return problem("gym", answer, meta=json.dumps({"dataset": dataset, "entry": entry}))


def fenced(program: str) -> str:
    """A response that holds a program."""
    return chat.response("Let me think.", f"```python\n{program}\n```")


def judged(pool: VerifierPool, verifier: str, gold: str, answer: str) -> Verdict:
    """The verdict on an answer in the full format."""
    return pool.verify([problem(verifier, gold)], [chat.response("so", answer)])[0]


def descendants(marker: Path) -> list[int]:
    """Processes on this machine whose TMPDIR is `marker`: a pool's workers, their forks, and whatever those started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue  # it has just ended, or is somebody else's
            if f"TMPDIR={marker}\0".encode() in environment:
                found.append(int(entry.name))
    return found


def until(met: Callable[[], bool]) -> None:
    """Wait for something that is about to happen; fails after 20 seconds."""
    limit = time.monotonic() + 20
    while not met():
        assert time.monotonic() < limit
        time.sleep(0.05)


def mirror(name: str) -> Path:
    """A file of the mirror of raw data; the test is skipped where there is none."""
    root = Path(os.environ.get("R1_DATA_MIRROR") or REPOSITORY / ".." / "shared" / "data")
    path = root / name
    if not path.is_file():
        pytest.skip(f"no {name} in the data mirror; set R1_DATA_MIRROR to a directory that has it")
    return path


def lines(name: str) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file of the mirror, gzipped or not."""
    path = mirror(name)
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.decode().splitlines()]
