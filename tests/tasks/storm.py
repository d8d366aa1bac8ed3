"""Many writers to one ledger, some of them killed at a random instant."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.ledger import Entry, open_ledger
from tasks.workspace import Workspace

FORK = multiprocessing.get_context("fork")


def write(
    workspace: Workspace, writer: str, count: int, log: Path, start: Any, *, threads: int = 1, weighty: int = 7
) -> None:
    """Append `count` entries a thread once all may; each is noted before it is written and once it is."""
    start.wait(100)

    def work(name: str) -> None:
        with (log / name).open("w", buffering=1) as notes:
            for number in range(count):
                kind = "registration" if number == count - 1 and hash(name) % weighty == 0 else "approval"
                notes.write(f"begins {name}.{number}\n")
                recorded = open_ledger(workspace).append(
                    Entry(kind=kind, job="storm", instance=f"{name}.{number}", status="done")
                )
                notes.write(f"wrote {name}.{number} {recorded.sequence}\n")

    own = [threading.Thread(target=work, args=(f"{writer}-{thread}",)) for thread in range(threads)]
    for thread in own:
        thread.start()
    for thread in own:
        thread.join()


def storm(
    workspaces: Sequence[Workspace], count: int, log: Path, *, threads: int = 1, kill: int, within: float, seed: int
) -> int:
    """A process for each workspace, `kill` of them killed at random within so many seconds. Says how many were."""
    log.mkdir()
    rng, start = random.Random(seed), FORK.Event()
    writers = [
        FORK.Process(target=write, args=(workspace, str(number), count, log, start), kwargs={"threads": threads})
        for number, workspace in enumerate(workspaces)
    ]
    for writer in writers:
        writer.start()
    start.set()
    killed = 0
    for victim in rng.sample(writers, kill):
        time.sleep(rng.uniform(0, within / kill))
        if victim.is_alive() and victim.pid is not None:
            os.kill(victim.pid, signal.SIGKILL)
            killed += 1
    for writer in writers:
        writer.join(120)
        assert writer.exitcode in (0, -signal.SIGKILL), writer.exitcode
    return killed


def faults(workspace: Workspace, log: Path) -> list[str]:
    """What was lost, doubled or broken."""
    ledger = open_ledger(workspace)
    found = ledger.verify()
    entries = list(ledger.entries())
    if [r.sequence for r in entries] != list(range(1, len(entries) + 1)):
        found.append("numbers are missing")
    places = {r.entry.instance: r.sequence for r in entries}
    found += [f"{name} is there {n} times" for name, n in Counter(r.entry.instance for r in entries).items() if n > 1]
    notes = [line.split() for file in log.iterdir() for line in file.read_text().splitlines()]
    begun = {note[1] for note in notes}
    found += [f"{name} was never written by anybody" for name in places if name not in begun]
    for word, name, *place in notes:
        if word == "wrote" and places.get(name) != int(place[0]):
            found.append(f"{name}, written as {place[0]}, is lost")
    return found
