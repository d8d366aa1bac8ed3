"""Single alterations of a finished history, each with what an audit must say of it."""

import json
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tasks.artifacts import canonical_json, digest_bytes
from tasks.ledger import open_ledger
from tests.tasks.finished import Finished

SEED = 20260501


@dataclass(frozen=True)
class Alteration:
    """One thing done to a history."""

    group: str
    name: str
    act: Callable[[], object]
    said: str
    """What at least one problem of the audit must match."""


class History:
    """A finished history that can be altered and restored."""

    def __init__(self, made: Finished, snapshot: Path) -> None:
        self.made, self.snapshot = made, snapshot
        self.workspace, self.root = made.workspace, made.root
        self.entries = list(open_ledger(made.workspace).entries())
        shutil.copytree(made.workspace.root.parent, snapshot, symlinks=True)

    @property
    def database(self) -> Path:
        """MLflow's."""
        return self.workspace.root / "mlflow.db"

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Do something to MLflow's database behind its back."""
        with sqlite3.connect(self.database) as connection:
            return connection.execute(statement, values).fetchall()

    def restore(self) -> None:
        """Everything as it was."""
        home = self.workspace.root.parent
        before = {path.relative_to(self.snapshot) for path in self.snapshot.rglob("*") if not path.is_dir()}
        now = {path.relative_to(home) for path in home.rglob("*") if not path.is_dir()}
        # The ledger's index is derived, and SQLite does not bear another file in its place.
        index = {name for name in before | now if name.name.startswith(self.workspace.ledger_index.name)}
        for extra in (now - before) | (index & now):
            (home / extra).unlink(missing_ok=True)  # SQLite may be quicker, when a connection closes
        own = self.database.relative_to(home)
        for name in before - {own} - index:
            kept, place = self.snapshot / name, home / name
            if not kept.is_symlink() and not (place.is_file() and place.read_bytes() == kept.read_bytes()):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.unlink(missing_ok=True)
                shutil.copy2(kept, place)
        with sqlite3.connect(self.snapshot / own) as kept, sqlite3.connect(self.database) as live:
            kept.backup(live)

    def entry_file(self, sequence: int) -> Path:
        """Where an entry lies."""
        return self.workspace.ledger_dir / f"{sequence:08d}.json"


def in_files_and_ledger(history: History) -> list[Alteration]:
    """Every alteration of what was made and of the ledger."""
    return [*_bits(history), *_missing_and_swapped(history), *_entries(history), *_fields(history)]


def flip(path: Path, rng: random.Random) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def _files(history: History) -> list[Path]:
    """All that was made, but the ledger and MLflow's database, which have alterations of their own."""
    own = history.workspace
    places = [own.artifacts_dir, own.runs_dir, own.keys_dir, history.root / "data", history.root / ".dvc/cache/files"]
    found = sorted(path for place in places for path in place.rglob("*") if path.is_file() and path.stat().st_size)
    return [path for path in found if "latest" not in path.parts]


def _named(history: History, path: Path) -> str:
    """The file itself, or the artifact that it is part of."""
    own = history.workspace
    if path.is_relative_to(history.root / "data"):
        return re.escape(path.relative_to(history.root).as_posix())
    for place, depth in ((own.artifacts_dir, 4), (own.runs_dir, 2)):  # experiment, run, artifacts, role; run, file
        if path.is_relative_to(place):
            return re.escape(place.joinpath(*path.relative_to(place).parts[:depth]).as_posix())
    return re.escape(str(path))


def _bits(history: History) -> Iterator[Alteration]:
    """One bit of files of every sort: models, tokenizers, data, evaluations, signatures, evidence, summaries, keys."""
    rng = random.Random(SEED)
    by_sort: dict[tuple[str, ...], list[Path]] = {}
    for path in _files(history):
        parts = path.relative_to(history.workspace.root.parent).parts
        by_sort.setdefault((*parts[:3], path.suffix if "cache" in parts else path.name), []).append(path)
    for paths in by_sort.values():
        for path in rng.sample(paths, min(2, len(paths))):
            name = path.relative_to(history.workspace.root.parent).as_posix()
            turn = partial(flip, path, random.Random(rng.random()))
            yield Alteration("bits", f"a bit of {name}", turn, _named(history, path))


def _missing_and_swapped(history: History) -> Iterator[Alteration]:
    rng = random.Random(SEED + 1)
    artifacts = [path for path in _files(history) if path.is_relative_to(history.workspace.artifacts_dir)]
    for path in rng.sample(artifacts, 8):
        yield Alteration("files", f"{path} is gone", path.unlink, _named(history, path))
    for path in rng.sample([p for p in artifacts if p.name == "config.json"], 3):
        extra = path.with_name("more.bin")
        yield Alteration("files", f"{extra} is new", partial(extra.write_bytes, b"x"), _named(history, path))
    pairs = [sorted(history.workspace.runs_dir.glob("2*/summary.json"))]
    for name in ("model.safetensors", "tokenizer.json", "model.sig", "evaluation.json", "evidence.json"):
        alike = [path for path in artifacts if path.name == name]
        unlike = [[a, b] for a in alike for b in alike if a < b and a.read_bytes() != b.read_bytes()]
        pairs += rng.sample(unlike, min(3, len(unlike)))
    for one, other in pairs:
        yield Alteration("files", f"{one} and {other} swapped", partial(_swap, one, other), _named(history, one))


def _swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def numbered(*sequences: int) -> str:
    """A problem that names one of these entries."""
    return rf"entr(y|ies) ({'|'.join(map(str, sequences))})\b"


def _entries(history: History) -> Iterator[Alteration]:
    """Ledger entries altered in one bit, removed, exchanged, put in, cut off, and rewritten with a new chain."""
    rng, last, file = random.Random(SEED + 2), history.entries[-1].sequence, history.entry_file

    def named(*sequences: int) -> str:
        return rf"{numbered(*sequences)}|{file(sequences[0]).name}"

    def alteration(name: str, act: Callable[[], object], said: str) -> Alteration:
        return Alteration("ledger", name, act, said)

    for n in (*rng.sample(range(1, last), 9), last):
        turn = partial(flip, file(n), random.Random(rng.random()))
        yield alteration(f"a bit of entry {n}", turn, named(n, n + 1))
        yield alteration(f"entry {n} removed", file(n).unlink, numbered(n))
    for n in rng.sample(range(2, last), 4):
        yield alteration(f"entries {n} and {n + 1} exchanged", partial(_swap, file(n), file(n + 1)), named(n, n + 1))
        yield alteration(f"a copy put in at {n}", partial(_put_in, history, n), numbered(n, n + 1))
        rewritten = r"gone or altered|signed over another ledger"
        yield alteration(f"rewritten from entry {n} on", partial(_rewrite, history, n), rewritten)
    for n in (*rng.sample(range(last // 2, last - 1), 3), last - 1):
        yield alteration(f"cut off before entry {n}", partial(_cut_off, history, n), "is gone|after ledger entry")


def _cut_off(history: History, sequence: int) -> None:
    for number in range(sequence, history.entries[-1].sequence + 1):
        history.entry_file(number).unlink()


def _put_in(history: History, sequence: int) -> None:
    """Shift what follows by one, numbers within the entries too, so that a copy of an entry fits in between."""
    for number in range(history.entries[-1].sequence, sequence - 1, -1):
        event = json.loads(history.entry_file(number).read_bytes())
        event["run"]["facets"]["r1kit_entry"]["sequence"] = number + 1
        history.entry_file(number + 1).write_bytes(canonical_json(event))


def _rewrite(history: History, sequence: int) -> None:
    """Alter an entry and chain all that follow anew, as somebody would who knows how."""
    previous = ""
    for number in range(sequence, history.entries[-1].sequence + 1):
        event = json.loads(history.entry_file(number).read_bytes())
        if previous:
            event["run"]["facets"]["r1kit_entry"]["previous"] = previous
        else:
            event["run"]["facets"]["r1kit_facts"]["facts"]["note"] = "nothing to see here"
        content = canonical_json(event)
        history.entry_file(number).write_bytes(content)
        previous = digest_bytes(content)


def _fields(history: History) -> Iterator[Alteration]:
    """Fields of a stage's entry, an approval, and the last entry, which none follows, set to something else."""
    rng, kinds = random.Random(SEED + 5), [(r.entry.kind, r.entry.status) for r in history.entries]
    for place in (kinds.index(("stage", "ran")) + 2, kinds.index(("approval", "done")), len(kinds) - 1):
        n = history.entries[place].sequence
        file = history.entry_file(n)
        leaves = [leaf for leaf in _leaves(json.loads(file.read_bytes())) if not str(leaf[-1]).startswith("_")]
        for leaf in rng.sample(leaves, 32 if place == len(kinds) - 1 else 12):
            name = ".".join(map(str, leaf))
            said = rf"{numbered(n, n + 1)}|{file.name}"
            yield Alteration("fields", f"entry {n}: {name}", partial(_set, file, leaf), said)


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [leaf for key, child in children for leaf in _leaves(child, (*path, key))]
    yield from found or [path]


def _set(file: Path, path: tuple[Any, ...]) -> None:
    event = json.loads(file.read_bytes())
    inner = event
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = _other(inner[path[-1]])
    file.write_bytes(canonical_json(event))


def _other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str() if value and value[-1].isalnum():
            return value[:-1] + ("0" if value[-1] != "0" else "1")
        case str():
            return value + "x"
        case _:
            return "x"
