"""How fast data pass the gates, and in how much memory: `make bench-data`.

Chains of 2,000 tokens, as long as those of DeepSeek-R1, are made of real questions and solutions (GSM8K, MATH) and
sent through all rules but verification, then through decontamination against GSM8K, MATH-500, AIME 2024 and HumanEval.
Each size runs in a process of its own. Prints a line a size, and last one JSON object.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from benchmarks.decontaminate import HELD_OUT, index_of
from benchmarks.environment import ROOT
from benchmarks.real_rows import problems
from r1kit.chat import response
from r1kit.config import ValidateConfig
from r1kit.data.foreign import sort_out
from r1kit.data.near import NearDuplicates
from r1kit.rewards import VerifierPool
from r1kit.rows import SftRow, table_of
from tasks import checkup, seen, slices

SIZES = (8_000, 80_000)
CHAIN_CHARACTERS = 8_000
_WRITTEN_ROWS = 4_000


def chains(count: int) -> Iterator[SftRow]:
    """Real questions with chains of real solutions, shuffled: no two alike, as long as R1's."""
    rows = [row for name in ("gsm8k_train", "math_test") for row in problems(name)[0] if not row.benchmark]
    texts = [row.solution or row.prompt for row in rows]
    for number in range(count):
        dice = random.Random(number)
        question, parts, length = dice.choice(rows), [], 0
        while length < CHAIN_CHARACTERS:
            parts.append(dice.choice(texts))
            length += len(parts[-1])
        yield SftRow(
            id=f"made/{number}",
            source="made",
            licence="MIT",
            prompt=f"{question.prompt} (variant {number})",
            response=response("\n".join(parts).replace("<", "&lt;"), question.answer or "1"),
            kind="chain",
        )


def write(path: Path, count: int) -> None:
    """The chains as a Parquet file, some thousand at a time."""
    rows = chains(count)
    with pq.ParquetWriter(path, table_of([], SftRow).schema, compression="zstd") as writer:
        for start in range(0, count, _WRITTEN_ROWS):
            batch = [row for _, row in zip(range(min(_WRITTEN_ROWS, count - start)), rows, strict=False)]
            writer.write_table(table_of(batch, SftRow))


class Stopwatch:
    """Seconds spent in named functions."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which counts what it takes."""

        def counted(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

        return counted


def validated(path: Path, count: int) -> dict[str, Any]:
    """Rows a second through every rule but verification, and where the time goes."""
    watch = Stopwatch()
    add = watch.timed("hashing", NearDuplicates.add)
    examine = watch.timed("great_expectations", slices.examine)
    tokens = watch.timed("tokenising", seen.estimated_tokens)
    question = checkup.Question(path, "chains", ValidateConfig(verify_rows=0), count_tokens=tokens)
    with VerifierPool(1) as pool, mock.patch.object(slices, "examine", examine):
        slices.examine(*_nothing())  # its import is no row's
        watch.seconds.clear()
        started = time.perf_counter()
        with mock.patch.object(NearDuplicates, "add", lambda self, *given: add(self, *given)):
            told = checkup.check(question, pool, lambda row: None)
        seconds = time.perf_counter() - started
    assert told["rows"] == count
    shares = {name: round(value / seconds, 3) for name, value in watch.seconds.items()}
    return {"rows_per_second": round(count / seconds), "success": told["success"], "shares": shares}


def _nothing() -> tuple[Any, Any]:
    import pandas as pd

    return pd.DataFrame({"row": [1], "id": ["a"]}), []


def decontaminated(path: Path, count: int) -> dict[str, Any]:
    """Rows a second against the benchmarks."""
    index = index_of([row for name in HELD_OUT for row in problems(name)[0] if row.benchmark])
    started = time.perf_counter()
    found = sum(row.overlap is not None for row in sort_out(path, index))
    seconds = time.perf_counter() - started
    return {"rows_per_second": round(count / seconds), "contaminated": found}


def one(count: int) -> dict[str, Any]:
    """All of one size, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chains.parquet"
        write(path, count)
        size = path.stat().st_size
        parts = {"validate": validated(path, count), "decontaminate": decontaminated(path, count)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    together = 1 / sum(1 / part["rows_per_second"] for part in parts.values())
    return {"rows": count, "file_bytes": size, **parts, "rows_per_second": round(together), "peak_bytes": peak}


def main() -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="rows; 800000 takes an hour")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one)))
        return 0
    results = []
    for size in arguments.sizes:
        command = [sys.executable, "-m", "benchmarks.data", "--one", str(size)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(results[-1]), flush=True)
    print(json.dumps({"benchmark": "data", "sizes": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
