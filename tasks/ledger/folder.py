"""The ledger in a local folder: one file an object, there whole or not at all, a number taken once."""

import contextlib
import fcntl
import os
import random
import time
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

Shelf = Literal["entries", "checkpoints", "packs"]
"""What a store keeps, each numbered from 1: entries, signed checkpoints, and packs of a thousand entries each."""
SUFFIXES: dict[Shelf, str] = {"entries": ".json", "checkpoints": ".json", "packs": ".jsonl"}
DIGITS = 8
READ_BYTES = 2**16
READERS, BATCH = 8, 200
"""Threads that read files, and how many files each takes at a time."""
SETTLED_NANOSECONDS = 100_000_000
WAIT_SECONDS = 10.0
"""How long a writer waits for its turn before it writes without one, as where another was stopped in its turn."""


class Store(Protocol):
    """Where a ledger's objects lie. Objects are created, never changed and never removed."""

    address: str
    """For people."""
    remote: bool
    """Whether reading costs a request."""

    def numbers(self, shelf: Shelf, after: int = 0) -> list[int]:
        """The numbers on a shelf that are greater than `after`, ascending."""
        ...

    def read(self, shelf: Shelf, number: int) -> bytes | None:
        """An object's bytes; None if there is none."""
        ...

    def read_many(self, shelf: Shelf, numbers: Iterable[int]) -> Iterator[bytes | None]:
        """The bytes of many objects, in order."""
        ...

    def create(self, shelf: Shelf, number: int, content: bytes) -> bool:
        """Put an object there unless one is there already. Says whether it did."""
        ...

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Held by a writer, so that those beside it wait instead of racing. A courtesy: `create` is the guarantee."""
        ...

    def title(self, shelf: Shelf, number: int) -> str:
        """An object's place, for people."""
        ...


def file_name(shelf: Shelf, number: int) -> str:
    """`00000042.json`."""
    return f"{number:0{DIGITS}d}{SUFFIXES[shelf]}"


def number_of(shelf: Shelf, name: str) -> int | None:
    """The number of an object of this shelf; None for any other name."""
    stem, suffix = name[:DIGITS], name[DIGITS:]
    return int(stem) if suffix == SUFFIXES[shelf] and stem.isascii() and stem.isdigit() else None


class FolderStore:
    """Entries in the folder itself, checkpoints and packs in folders of their own within it."""

    remote = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = str(directory)
        self._prefixes: dict[Shelf, str] = {
            shelf: f"{self._folder(shelf)}{os.sep}" for shelf in ("entries", "checkpoints", "packs")
        }

    def numbers(self, shelf: Shelf, after: int = 0) -> list[int]:
        """The numbers there are; with `after`, those that follow it without a gap, which costs no listing."""
        if after:
            number = after
            while os.path.exists(self._file(shelf, number + 1)):
                number += 1
            return list(range(after + 1, number + 1))
        try:
            return _listed(self._prefixes[shelf], shelf)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, shelf: Shelf, number: int) -> bytes | None:
        """A file's bytes; None if it is not there."""
        try:
            descriptor = os.open(self._file(shelf, number), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            parts = [os.read(descriptor, READ_BYTES)]
            while len(parts[-1]) == READ_BYTES:
                parts.append(os.read(descriptor, READ_BYTES))
        finally:
            os.close(descriptor)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_many(self, shelf: Shelf, numbers: Iterable[int]) -> Iterator[bytes | None]:
        """The bytes of many files, in order, several at once: a cold disk answers many requests as fast as one."""
        wanted = list(numbers)
        if len(wanted) <= BATCH:
            yield from (self.read(shelf, number) for number in wanted)
            return
        batches = [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
        with ThreadPoolExecutor(READERS) as readers:
            for start in range(0, len(batches), 2 * READERS):  # not all of them in memory
                window = batches[start : start + 2 * READERS]
                for contents in readers.map(lambda batch: [self.read(shelf, number) for number in batch], window):
                    yield from contents

    def create(self, shelf: Shelf, number: int, content: bytes) -> bool:
        """Put the file there whole and on the disk, unless one is there already. Says whether it did."""
        folder = self._folder(shelf)
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / f".{os.getpid()}-{uuid.uuid4().hex}"
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(scratch, self._file(shelf, number))
        except FileExistsError:
            return False
        finally:
            scratch.unlink(missing_ok=True)
        _sync(folder)
        return True

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """The folder's lock. The kernel lets go of it when its holder dies, however it dies."""
        self.directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            until = time.monotonic() + WAIT_SECONDS
            while not _locked(descriptor) and time.monotonic() < until:
                time.sleep(random.uniform(0.001, 0.015))
            yield
        finally:
            os.close(descriptor)

    def title(self, shelf: Shelf, number: int) -> str:
        """The file."""
        return self._file(shelf, number)

    def _folder(self, shelf: Shelf) -> Path:
        return self.directory if shelf == "entries" else self.directory / shelf

    def _file(self, shelf: Shelf, number: int) -> str:
        return self._prefixes[shelf] + file_name(shelf, number)


_LISTINGS: dict[str, tuple[int, list[int]]] = {}
"""Folder → when it last changed, and what was in it: listing a hundred thousand names takes a while."""


def _listed(folder: str, shelf: Shelf) -> list[int]:
    changed = os.stat(folder).st_mtime_ns
    if _LISTINGS.get(folder, (0, []))[0] != changed:
        settled = time.time_ns() - changed > SETTLED_NANOSECONDS
        suffix = SUFFIXES[shelf]  # as in `number_of`, which would take twice the time for very many names
        found = sorted(
            int(name[:DIGITS])
            for name in os.listdir(folder)
            if name[DIGITS:] == suffix and name.isascii() and name[:DIGITS].isdigit()
        )
        found = found[1:] if found[:1] == [0] else found
        if not settled:  # it may change again within one tick of the file system's clock
            return found
        _LISTINGS[folder] = (changed, found)
    return list(_LISTINGS[folder][1])


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another, or a file system without locks
        return False
    return True


def _sync(folder: Path) -> None:
    """Have the folder's new name on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
