"""What makes questions to a long ledger quick: an index of its entries in SQLite.

Derived from the entries, never trusted over them: it says which entry to read, and the entry is then read where it
lies. Of a ledger on S3 it also keeps the entries' bytes, each checked against its digest when it is taken out. It may
be deleted at any time.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from tasks.artifacts import digest_bytes
from tasks.ledger.entry import Recorded

FORMAT = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS entries (
    sequence INTEGER PRIMARY KEY, digest TEXT NOT NULL, kind TEXT NOT NULL, job TEXT NOT NULL, instance TEXT NOT NULL,
    status TEXT NOT NULL, key TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (sequence INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS edges (
    artifact TEXT NOT NULL, side TEXT NOT NULL, sequence INTEGER NOT NULL, role TEXT NOT NULL,
    PRIMARY KEY (artifact, side, sequence, role)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_kind ON entries (kind, job, instance, sequence);
CREATE INDEX IF NOT EXISTS entries_by_key ON entries (key, sequence);
"""


class Index:
    """The index in a file, or in memory without one."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    def add(self, entries: Iterable[tuple[Recorded, bytes | None]]) -> None:
        """Take entries in, with their bytes where those are to be kept too."""
        rows, contents, edges = [], [], []
        for recorded, content in entries:
            entry, number = recorded.entry, recorded.sequence
            key = str(entry.facts.get("key", ""))
            rows.append((number, recorded.digest, entry.kind, entry.job, entry.instance, entry.status, key))
            edges += [(edge.artifact.digest, "in", number, edge.role) for edge in entry.inputs]
            edges += [(edge.artifact.digest, "out", number, edge.role) for edge in entry.outputs]
            if content is not None:
                contents.append((number, content))
        with self._lock, self._open() as connection:
            connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            connection.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?)", contents)
            connection.executemany("INSERT OR REPLACE INTO edges VALUES (?, ?, ?, ?)", edges)

    def forget(self, sequences: Iterable[int] | None = None) -> None:
        """Drop some entries, or all."""
        with self._lock, self._open() as connection:
            for table in ("entries", "contents", "edges"):
                if sequences is None:
                    connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of our own
                else:
                    gone = [(number,) for number in sequences]
                    connection.executemany(f"DELETE FROM {table} WHERE sequence = ?", gone)  # noqa: S608 - ours

    def last(self) -> tuple[int, str]:
        """Number and digest of the last entry known; 0 without any."""
        rows = self.ask("SELECT sequence, digest FROM entries ORDER BY sequence DESC LIMIT 1")
        return rows[0] if rows else (0, "")

    def is_whole(self, last: int) -> bool:
        """Whether all entries up to the last are known."""
        return self.ask("SELECT count(*) FROM entries")[0][0] == last

    def numbers(self) -> list[int]:
        """The numbers of all entries known."""
        return [number for (number,) in self.ask("SELECT sequence FROM entries ORDER BY sequence")]

    def content(self, sequence: int) -> bytes | None:
        """An entry's bytes, if they are kept and are the ones that were taken in."""
        query = "SELECT content, digest FROM contents JOIN entries USING (sequence) WHERE sequence = ?"
        rows = self.ask(query, sequence)
        return rows[0][0] if rows and digest_bytes(rows[0][0]) == rows[0][1] else None

    def ask(self, query: str, *values: Any) -> list[Any]:
        """The rows that answer a query."""
        with self._lock:
            return self._open().execute(query, values).fetchall()

    def renew(self) -> None:
        """Start an index that cannot be read anew."""
        with self._lock:
            self._connection, self._process = self._anew(), os.getpid()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None or self._process != os.getpid():
            try:
                self._connection = _connect(self.path)
            except (sqlite3.Error, OSError):
                self._connection = self._anew()
            self._process = os.getpid()
        return self._connection

    def _anew(self) -> sqlite3.Connection:
        """Another index in place of one that cannot be read; in memory where nothing can be written."""
        if self.path is not None:
            with contextlib.suppress(sqlite3.Error, OSError):
                for suffix in ("", "-wal", "-shm"):
                    self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
                return _connect(self.path)
        return _connect(None)


def _connect(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path or ":memory:", timeout=60, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if found not in (0, FORMAT):
        raise sqlite3.DatabaseError("an index of another version")
    with connection:
        connection.executescript(_TABLES)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
    return connection


class History(Sequence[Recorded]):
    """The ledger's entries at one moment, first to last, read when they are looked at."""

    def __init__(self, index: Index, numbers: Sequence[int], read: Callable[[int], Recorded]) -> None:
        self._index, self._numbers, self._read = index, numbers, read
        self._last = numbers[-1] if numbers else 0

    @classmethod
    def of(cls, entries: Sequence[Recorded]) -> "History":
        """A history of some entries."""
        if isinstance(entries, History):
            return entries
        index, known = Index(), {recorded.sequence: recorded for recorded in entries}
        index.add((recorded, None) for recorded in entries)
        return cls(index, sorted(known), known.__getitem__)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Recorded: ...
    @overload
    def __getitem__(self, place: slice) -> list[Recorded]: ...
    def __getitem__(self, place: int | slice) -> Recorded | list[Recorded]:
        if isinstance(place, slice):
            return [self._read(number) for number in self._numbers[place]]
        return self._read(self._numbers[place])

    def __iter__(self) -> Iterator[Recorded]:
        return (self._read(number) for number in self._numbers)

    def with_output(self, digest: str, role: str | None = None) -> list[Recorded]:
        """The entries that have an artifact with this digest among their outputs, in this role if one is named."""
        return self._with("out", digest, role)

    def with_input(self, digest: str, role: str | None = None) -> list[Recorded]:
        """The entries that have an artifact with this digest among their inputs, in this role if one is named."""
        return self._with("in", digest, role)

    def of_kind(self, *kinds: str) -> list[Recorded]:
        """The entries of these kinds."""
        marks = ", ".join("?" * len(kinds))
        return self._found(f"SELECT sequence FROM entries WHERE kind IN ({marks})", *kinds)  # noqa: S608 - marks alone

    def with_key(self, key: str) -> list[Recorded]:
        """The entries of the stage with this key."""
        return self._found("SELECT sequence FROM entries WHERE key = ?", key)

    def jobs(self, kind: str = "stage") -> list[tuple[str, str]]:
        """Every job and instance that entries of a kind have."""
        query = "SELECT DISTINCT job, instance FROM entries WHERE kind = ? AND sequence <= ?"
        return self._index.ask(query, kind, self._last)

    def of_job(self, job: str, instance: str = "") -> Iterator[Recorded]:
        """The stage entries of a job and instance, latest first, each read when it is asked for."""
        query = """SELECT sequence FROM entries WHERE kind = 'stage' AND job = ? AND instance = ? AND sequence <= ?
            ORDER BY sequence DESC"""
        return (self._read(number) for (number,) in self._index.ask(query, job, instance, self._last))

    def artifacts(self, beginning: str) -> list[str]:
        """The digests of artifacts that begin so."""
        query = "SELECT DISTINCT artifact FROM edges WHERE artifact >= ? AND artifact < ? AND sequence <= ?"
        return [digest for (digest,) in self._index.ask(query, beginning, beginning + "~", self._last)]

    def _with(self, side: str, digest: str, role: str | None) -> list[Recorded]:
        query = "SELECT DISTINCT sequence FROM edges WHERE artifact = ? AND side = ? AND ifnull(? = role, true)"
        return self._found(query, digest, side, role)

    def _found(self, query: str, *values: Any) -> list[Recorded]:
        rows = self._index.ask(f"{query} AND sequence <= ? ORDER BY sequence", *values, self._last)
        return [self._read(number) for (number,) in rows]
