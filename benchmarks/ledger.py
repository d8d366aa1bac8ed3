"""How the ledger grows: `make bench-ledger`, about five minutes.

At each size: appending (one writer; 64 at once), verifying in full and from the last checkpoint, making the index, and
the lineage of the newest R1, asked by a process that has the index and by one that scans the entries, as without it.
In a local folder up to 100,000 entries, and on a real S3 server on this machine up to 3,000. Beside it, in the same
run, the naive rival: rows of the same size in SQLite, a commit and an fsync each, which has neither chain nor proof.
The last line is one JSON object. Exit status 0 where 100,000 entries are verified in under 10 seconds and a lineage
takes under one.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tasks.artifacts import Artifact, digest_bytes, digest_json
from tasks.ledger import GENESIS, Entry, Ledger, folder, open_ledger, stage_entry
from tasks.ledger.entry import new_id, parse, to_bytes
from tasks.ledger.folder import file_name
from tasks.lineage import ancestry, resolve_model
from tasks.workspace import Workspace
from tests.tasks.seaweed import S3Server, seaweed

ROOT = Path(__file__).resolve().parents[1]
LOCAL, REMOTE = (1_000, 10_000, 100_000), (300, 3_000)
VERIFY_SECONDS, LINEAGE_SECONDS = 10.0, 1.0
WRITERS = 64
FORK = multiprocessing.get_context("fork")


def artifact(kind: str, name: str) -> Artifact:
    """Some bytes that are nowhere: the ledger keeps references only."""
    uri = f"file:///srv/r1kit/.r1/artifacts/r1kit/{name}/artifacts/{kind}"
    return Artifact(kind=kind, uri=uri, digest=digest_json([kind, name]), size_bytes=1_000_000)


def recipe_entries() -> Iterator[Entry]:
    """One run of the recipe after another, ten entries each, as stages write them."""
    for run in range(10**9):
        problems, model = artifact("problems", f"{run}"), artifact("model", f"base-{run}")
        steps: list[tuple[str, dict[str, Artifact], dict[str, Artifact]]] = [
            ("data", {}, {"problems": problems}),
            ("validate", {"problems": problems}, {"validation": artifact("validation", f"{run}")}),
            ("base", {"problems": problems}, {"model": model}),
        ]
        for stage in ("zero", "cold_start", "reason", "refine", "prefer"):
            made = artifact("model", f"{stage}-{run}")
            steps.append((stage, {"model": model, "problems": problems}, {"model": made}))
            model = made
        steps.append(("evaluate", {"model": model}, {"evaluation": artifact("evaluation", f"{run}")}))
        steps.append(("distill", {"model": model}, {"model": artifact("model", f"student-{run}")}))
        for stage, inputs, outputs in steps:
            yield stage_entry(
                stage=stage, status="ran", run=f"run-{run}", key=digest_json([stage, run]), inputs=inputs, seed=0,
                code_digest=digest_json(stage), outputs=outputs, seconds=31.4, mlflow_run_id=uuid.uuid4().hex,
                config={"steps": 60, "learning_rate": 3e-5, "kl": 0.01, "sampling": {"max_tokens": 64}},
                metrics={f"metric_{number}": number / 7 for number in range(12)},
                facts={"runtime": {"processes": 1, "zero_stage": 0, "threads": 2}},
            )  # fmt: skip


def history(start: int, stop: int, previous: str) -> Iterator[tuple[int, bytes]]:
    """Entries in their places, chained."""
    entries = recipe_entries()
    for number in range(start, stop + 1):
        content = to_bytes(next(entries), number, previous, new_id())
        previous = digest_bytes(content)
        yield number, content


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def grow_folder(workspace: Workspace, size: int) -> None:
    """Bring a ledger in a folder to a size: written without waiting for the disk, then signed."""
    workspace.ledger_dir.mkdir(parents=True, exist_ok=True)
    head = Ledger(workspace.ledger_dir).head()
    for number, content in history(head.sequence + 1, size - 1, head.digest):
        (workspace.ledger_dir / file_name("entries", number)).write_bytes(content)
    os.sync()
    open_ledger(workspace).append(next(recipe_entries()))  # its number is a multiple of a thousand: a checkpoint


def grow_bucket(workspace: Workspace, server: S3Server, bucket: str, size: int) -> None:
    """Bring a ledger in a bucket to a size, 16 writes at once, then sign it."""
    client, head = server.client(), open_ledger(workspace).head()
    with ThreadPoolExecutor(16) as writers:
        list(
            writers.map(
                lambda entry: client.put_object(
                    Bucket=bucket, Key=f"ledger/entries/{file_name('entries', entry[0])}", Body=entry[1]
                ),
                list(history(head.sequence + 1, size - 1, head.digest)),
            )
        )
    open_ledger(workspace).append(Entry(kind="registration", job="register", status="done"))


def append_alone(workspace: Workspace, count: int) -> float:
    """Median seconds of one append by one writer, each as a command of its own would do it."""
    entries = recipe_entries()
    return statistics.median(timed(lambda: open_ledger(workspace).append(next(entries)))[0] for _ in range(count))


def append_together(workspaces: list[Workspace], count: int, threads: int) -> float:
    """Entries a second by 64 writers at once: processes, or threads in fewer processes."""

    ready = FORK.Barrier(len(workspaces) + 1)

    def work(workspace: Workspace) -> None:
        open_ledger(workspace).head()  # a client of its own
        ready.wait()

        def write(_: int) -> None:
            entries = recipe_entries()
            for _ in range(count):
                open_ledger(workspace).append(next(entries))

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write, range(threads)))

    writers = [FORK.Process(target=work, args=(workspace,)) for workspace in workspaces]
    for writer in writers:
        writer.start()
    ready.wait()
    started = time.perf_counter()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0, "a writer failed"
    return len(workspaces) * threads * count / (time.perf_counter() - started)


def lineage(workspace: Workspace, entries: Callable[[], Any]) -> int:
    """How many steps lie behind the newest R1."""
    found = resolve_model("r1", workspace)
    return len(ancestry(entries(), found.artifact, found.run).steps)


def scan(workspace: Workspace) -> int:
    """The same by reading every entry and looking through all of them for each step."""
    store = Ledger(workspace.ledger_dir).store
    numbers = store.numbers("entries")
    entries = [
        parse(content or b"", n) for n, content in zip(numbers, store.read_many("entries", numbers), strict=True)
    ]
    newest = next(r for r in reversed(entries) if r.entry.job == "prefer").entry.output("model")
    assert newest is not None, "prefer makes a model"
    wanted, steps = [newest.digest], set()
    while wanted:
        digest = wanted.pop()
        for recorded in entries:
            if any(edge.artifact.digest == digest for edge in recorded.entry.outputs):
                steps.add(recorded.sequence)
                wanted += [e.artifact.digest for e in recorded.entry.inputs]
    return len(steps)


def questions(workspace: Workspace, *, with_scan: bool) -> dict[str, Any]:
    """Verifying and asking, each by a ledger newly opened."""
    shutil.rmtree(workspace.ledger_index.parent, ignore_errors=True)
    index_seconds, entries = timed(lambda: open_ledger(workspace).entries())
    folder._LISTINGS.clear()  # as in a new process
    lineage_seconds, steps = timed(lambda: lineage(workspace, open_ledger(workspace).entries))
    before = time.process_time()
    full_seconds, faults = timed(lambda: open_ledger(workspace).verify())
    full_cpu = time.process_time() - before
    quick_seconds, quick_faults = timed(lambda: open_ledger(workspace).verify(full=False))
    assert faults == quick_faults == [] and steps == 7, (faults, quick_faults, steps)
    row: dict[str, Any] = {
        "entries": len(entries),
        "verify_full_seconds": round(full_seconds, 3),
        "verify_full_cpu_seconds": round(full_cpu, 3),
        "verify_from_checkpoint_seconds": round(quick_seconds, 4),
        "lineage_seconds": round(lineage_seconds, 4),
        "index_seconds": round(index_seconds, 3),
    }
    if with_scan:
        scan_seconds, scanned = timed(lambda: scan(workspace))
        assert scanned == steps, scanned
        row |= {
            "lineage_by_scan_seconds": round(scan_seconds, 3),
            "scan_to_index": round(scan_seconds / lineage_seconds),
        }
    return row


def rival(place: Path, content: bytes, count: int) -> dict[str, float]:
    """SQLite: seconds a row by one writer, rows a second by 64."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(place, timeout=120, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, content BLOB)")
        return connection

    ready = FORK.Barrier(WRITERS + 1)

    def write(number: int) -> None:
        connection = connect()
        ready.wait()
        for _ in range(number):
            connection.execute("INSERT INTO entries (content) VALUES (?)", (content,))

    own = connect()
    alone = statistics.median(
        timed(lambda: own.execute("INSERT INTO entries (content) VALUES (?)", (content,)))[0] for _ in range(100)
    )
    own.close()
    writers = [FORK.Process(target=write, args=(count,)) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    ready.wait()
    started = time.perf_counter()
    for writer in writers:
        writer.join()
    together = WRITERS * count / (time.perf_counter() - started)
    return {"append_seconds": round(alone, 5), "appends_per_second_64_writers": round(together, 1)}


def measure_folder(place: Path, size: int, per_writer: int) -> dict[str, Any]:
    """A row for the local folder at a size."""
    workspace = Workspace(place / f"local-{size}")
    grow_folder(workspace, size)
    row = {"store": "folder", **questions(workspace, with_scan=True)}
    other = rival(place / f"{size}.db", next(iter(history(1, 1, GENESIS)))[1], per_writer)
    alone = append_alone(workspace, 100)
    together = append_together([workspace] * WRITERS, per_writer, 1)
    return row | {
        "append_seconds": round(alone, 5),
        "appends_per_second_64_writers": round(together, 1),
        "sqlite": other,
        "append_ratio_to_sqlite": round(alone / other["append_seconds"], 2),
        "appends_64_ratio_to_sqlite": round(together / other["appends_per_second_64_writers"], 2),
    }


def measure_bucket(place: Path, server: S3Server, size: int, per_writer: int) -> dict[str, Any]:
    """A row for S3 at a size; eight machines with eight writers each."""
    bucket = f"bench-{size}"
    server.client().create_bucket(Bucket=bucket)
    os.environ["R1_LEDGER"] = f"s3://{bucket}/ledger"
    workspace = Workspace(place / f"s3-{size}")
    grow_bucket(workspace, server, bucket, size)
    row = {"store": "s3", **questions(workspace, with_scan=False)}
    machines = [Workspace(place / f"s3-{size}-{number}") for number in range(8)]
    for machine in machines:
        shutil.copytree(workspace.keys_dir, machine.keys_dir)
    row["append_seconds"] = round(append_alone(workspace, 30), 5)
    row["appends_per_second_64_writers"] = round(append_together(machines, per_writer, 8), 1)
    assert open_ledger(workspace).verify(full=False) == []
    del os.environ["R1_LEDGER"]
    return row


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 where the two limits hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=LOCAL, help="multiples of 1000, in a folder")
    parser.add_argument("--s3-sizes", type=int, nargs="*", default=REMOTE)
    asked = parser.parse_args(arguments)
    os.environ.pop("R1_LEDGER", None)
    rows = []
    (ROOT / "build").mkdir(exist_ok=True)  # on the disk that runs are on, and ignored by git
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as scratch:
        place = Path(scratch)
        for size in asked.sizes:
            rows.append(measure_folder(place, size, 10))
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if asked.s3_sizes:
            with seaweed(place / "seaweed") as server:
                os.environ |= server.environment()
                for size in asked.s3_sizes:
                    rows.append(measure_bucket(place, server, size, 3))
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    local = [row for row in rows if row["store"] == "folder"]
    within = all(
        row["verify_full_seconds"] < VERIFY_SECONDS and row["lineage_seconds"] < LINEAGE_SECONDS for row in local
    )
    told = {
        "benchmark": "ledger",
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),
        "limits": {"verify_full_seconds": VERIFY_SECONDS, "lineage_seconds": LINEAGE_SECONDS},
        "within": within,
        "rows": rows,
    }
    print(json.dumps(told))
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
