"""Single alterations of a finished history, each with what an audit must say of it."""

import json
import random
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks import sshsig
from tasks.approvals import NAMESPACE
from tasks.artifacts import canonical_json, digest_bytes
from tasks.ledger import Edge, Entry, Recorded, open_ledger
from tasks.pins import Pin, pinned_files
from tests.tasks.finished import ALICE, BOB, CAROL, PROFILE, Finished

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
        for extra in now - before:
            (home / extra).unlink()
        own = self.database.relative_to(home)
        for name in before - {own}:
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


def all_of(history: History) -> list[Alteration]:
    """Every alteration, in an order that does not change."""
    return [
        *_bits(history), *_missing_and_swapped(history), *_entries(history), *_fields(history), *_registry(history),
        *_tracked_runs(history), *_pins(history), *_approvers(history), *_forged(history),
    ]  # fmt: skip


def flip(path: Path, rng: random.Random) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def _files(history: History) -> list[Path]:
    """All that was made, but the ledger and MLflow's database, which have alterations of their own."""
    places = [
        history.workspace.artifacts_dir,
        history.workspace.runs_dir,
        history.root / "data",
        history.workspace.keys_dir,
    ]
    places.append(history.root / ".dvc" / "cache" / "files")
    found = sorted(path for place in places for path in place.rglob("*") if path.is_file() and path.stat().st_size)
    return [path for path in found if "latest" not in path.parts and path.name != "report.html"]


def _named(history: History, path: Path) -> str:
    """The file itself, or the artifact that it is part of."""
    if path.is_relative_to(history.root / "data"):
        return re.escape(path.relative_to(history.root).as_posix())
    if path.is_relative_to(history.workspace.artifacts_dir):
        role = path.relative_to(history.workspace.artifacts_dir).parts[:4]  # experiment, run, artifacts, role
        return re.escape(history.workspace.artifacts_dir.joinpath(*role).as_posix())
    if path.is_relative_to(history.workspace.runs_dir):
        return re.escape(
            history.workspace.runs_dir.joinpath(*path.relative_to(history.workspace.runs_dir).parts[:2]).as_posix()
        )
    return re.escape(str(path))


def _bits(history: History) -> Iterator[Alteration]:
    """One bit of every file: models, tokenizers, data, evaluations, signatures, evidence, summaries, keys."""
    rng = random.Random(SEED)
    for path in _files(history):
        draw = random.Random(rng.random())
        name = path.relative_to(history.workspace.root.parent).as_posix()
        yield Alteration("bits", f"a bit of {name}", lambda p=path, r=draw: flip(p, r), _named(history, path))


def _missing_and_swapped(history: History) -> Iterator[Alteration]:
    rng = random.Random(SEED + 1)
    artifacts = [path for path in _files(history) if path.is_relative_to(history.workspace.artifacts_dir)]
    for path in rng.sample(artifacts, 12):
        yield Alteration("files", f"{path} is gone", path.unlink, _named(history, path))
    for path in rng.sample([p for p in artifacts if p.name == "config.json"], 4):
        extra = path.with_name("pickled.bin")
        yield Alteration("files", f"{extra} is new", lambda e=extra: e.write_bytes(b"x"), _named(history, path))
    for name in ("model.safetensors", "tokenizer.json", "model.sig", "evaluation.json", "evidence.json"):
        alike = [path for path in artifacts if path.name == name]
        pairs = [(a, b) for a in alike for b in alike if a < b and a.read_bytes() != b.read_bytes()]
        for one, other in rng.sample(pairs, min(4, len(pairs))):
            yield Alteration(
                "files", f"{one} and {other} swapped", lambda a=one, b=other: _swap(a, b), _named(history, one)
            )
    one, other = sorted(history.workspace.runs_dir.glob("2*/summary.json"))
    yield Alteration("files", "the summaries of two runs swapped", lambda: _swap(one, other), _named(history, one))


def _swap(one: Path, other: Path) -> None:
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _numbered(*sequences: int) -> str:
    """A problem that names one of these entries."""
    return rf"entr(y|ies) ({'|'.join(map(str, sequences))})\b"


def _entries(history: History) -> Iterator[Alteration]:
    """Ledger entries altered in one bit, removed, exchanged, put in, cut off, and rewritten with a new chain."""
    rng, last = random.Random(SEED + 2), history.entries[-1].sequence
    for sequence in range(1, last + 1):
        path, draw, said = history.entry_file(sequence), random.Random(rng.random()), _numbered(sequence, sequence + 1)
        said = rf"{said}|{path.name}"
        yield Alteration("ledger", f"a bit of entry {sequence}", lambda p=path, r=draw: flip(p, r), said)
    for sequence in (*rng.sample(range(1, last), 8), last):
        path = history.entry_file(sequence)
        yield Alteration("ledger", f"entry {sequence} removed", path.unlink, _numbered(sequence))
    for sequence in rng.sample(range(1, last - 1), 6):
        one, other = history.entry_file(sequence), history.entry_file(sequence + 1)
        said = rf"{_numbered(sequence, sequence + 1)}|{one.name}"
        yield Alteration(
            "ledger", f"entries {sequence} and {sequence + 1} exchanged", lambda a=one, b=other: _swap(a, b), said
        )
    for sequence in rng.sample(range(2, last), 6):
        yield Alteration("ledger", f"a copy put in at {sequence}", lambda n=sequence: _put_in(history, n),
                         _numbered(sequence, sequence + 1))  # fmt: skip
    for sequence in rng.sample(range(last // 2, last), 4):
        yield Alteration("ledger", f"cut off at {sequence}", lambda n=sequence: _cut_off(history, n), r"is gone")
    for sequence in rng.sample(range(2, last), 6):
        yield Alteration("ledger", f"rewritten from entry {sequence} on", lambda n=sequence: _rewrite(history, n),
                         r"gone or altered|was signed over another ledger")  # fmt: skip


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
    """Every field of a stage's entry, an approval, a promotion, and the last entry, set to something else."""
    kinds = [(r.entry.kind, r.entry.status) for r in history.entries]
    chosen = [kinds.index(("stage", "ran")) + 2, kinds.index(("approval", "done")), len(kinds) - 1]
    for place in chosen:
        sequence = history.entries[place].sequence
        event = json.loads(history.entry_file(sequence).read_bytes())
        for path in _leaves(event):
            if path[-1] in ("_producer", "_schemaURL"):
                continue
            said = rf"{_numbered(sequence, sequence + 1)}|{history.entry_file(sequence).name}"
            yield Alteration("fields", f"entry {sequence}: {'.'.join(map(str, path))}",
                             lambda n=sequence, p=path: _set(history.entry_file(n), p), said)  # fmt: skip


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


def _registry(history: History) -> Iterator[Alteration]:
    """Aliases, versions and tags of MLflow's registry."""
    for name, alias, version in history.sql("SELECT name, alias, version FROM registered_model_aliases ORDER BY 1, 2"):
        where, said = "WHERE name = ? AND alias = ?", rf"{name}@{alias}"
        moved = f"UPDATE registered_model_aliases SET version = version + 1 {where}"
        yield Alteration(
            "registry", f"{said} moved from {version}", lambda s=moved, v=(name, alias): history.sql(s, *v), said
        )
        deleted = f"DELETE FROM registered_model_aliases {where}"
        yield Alteration("registry", f"{said} deleted", lambda s=deleted, v=(name, alias): history.sql(s, *v), said)
    add = "INSERT INTO registered_model_aliases (name, alias, version) VALUES (?, ?, ?)"
    for name, alias in (
        ("r1kit-candidate", "current"),
        ("r1kit-staging", "previous"),
        ("r1kit-production", "previous"),
    ):
        yield Alteration(
            "registry", f"{name}@{alias} added", lambda v=(name, alias, 1): history.sql(add, *v), f"{name}@{alias}"
        )
    for name, version, key in history.sql("SELECT name, version, key FROM model_version_tags ORDER BY 1, 2, 3"):
        said = rf"{name}/{version}( |:).*({re.escape(key)}|ledger entry)"
        yield from _row(
            "model_version_tags", "name = ? AND version = ? AND key = ?", (name, version, key), said, history
        )
    for name, key in history.sql("SELECT name, key FROM registered_model_tags ORDER BY 1, 2"):
        said = rf"{name}( |:).*({re.escape(key)}|ledger entry)"
        yield from _row("registered_model_tags", "name = ? AND key = ?", (name, key), said, history)
    for name, version in history.sql("SELECT name, version FROM model_versions ORDER BY 1, 2"):
        where, values = "WHERE name = ? AND version = ?", (name, version)
        for change in ("source = 'runs:/0/model'", "run_id = '0'", "current_stage = 'Deleted_Internal'"):
            statement = f"UPDATE model_versions SET {change} {where}"
            yield Alteration("registry", f"{name}/{version}: {change}", lambda s=statement, v=values: history.sql(s, *v),
                             rf"{name}/{version} ")  # fmt: skip
    extra = (
        "INSERT INTO model_versions (name, version, creation_time, status, current_stage, source, run_id) "
        "SELECT name, 9, creation_time, status, current_stage, source, run_id FROM model_versions "
        "WHERE name = 'r1kit-production' AND version = 1"
    )
    yield Alteration(
        "registry", "a version put in", lambda: history.sql(extra), "r1kit-production/9 is in the registry"
    )


def _row(table: str, where: str, values: tuple[Any, ...], said: str, history: History) -> Iterator[Alteration]:
    """A row's value altered, and the row deleted."""
    title = f"{table} {' '.join(map(str, values))}"
    altered = f"UPDATE {table} SET value = value || 'x' WHERE {where}"
    yield Alteration("registry", f"{title} altered", lambda: history.sql(altered, *values), said)
    yield Alteration(
        "registry", f"{title} deleted", lambda: history.sql(f"DELETE FROM {table} WHERE {where}", *values), said
    )


def _tracked_runs(history: History) -> Iterator[Alteration]:
    """What MLflow tells of the runs of stages."""
    rng = random.Random(SEED + 3)
    runs = {str(r.entry.facts.get("mlflow_run_id")): r for r in history.entries if r.entry.status == "ran"}
    for run_id in rng.sample(sorted(runs), 6):
        for change in ("status = 'RUNNING'", "lifecycle_stage = 'deleted'"):
            statement = f"UPDATE runs SET {change} WHERE run_uuid = ?"
            yield Alteration("runs", f"{run_id}: {change}", lambda s=statement, v=run_id: history.sql(s, v), run_id)
    for table in ("tags", "params", "latest_metrics"):
        rows = [
            (run_id, key)
            for run_id, key in history.sql(f"SELECT run_uuid, key FROM {table} ORDER BY 2, 1")
            if run_id in runs and (key.startswith(("r1kit.", "final_")) or table == "params") and key != "r1kit.run"
        ]
        changed = "value + 1" if table == "latest_metrics" else "value || 'x'"
        for run_id, key in rng.sample(rows, 6):
            said, where = rf"{run_id}.*{re.escape(key)}", "WHERE run_uuid = ? AND key = ?"
            for act, statement in (
                ("altered", f"UPDATE {table} SET value = {changed} {where}"),
                ("deleted", f"DELETE FROM {table} {where}"),
            ):
                yield Alteration("runs", f"{table} {key} of {run_id} {act}",
                                 lambda s=statement, v=(run_id, key): history.sql(s, *v), said)  # fmt: skip


def _pins(history: History) -> Iterator[Alteration]:
    """Every pin's digest; sizes and paths of some."""
    lock = history.root / "dvc.lock"
    pins: dict[str, Pin] = pinned_files(PROFILE, history.root)
    for path, pin in pins.items():
        other = pin.md5[:-1] + ("0" if pin.md5[-1] != "0" else "1")
        yield Alteration("pins", f"the pin of {path}", lambda a=pin.md5, b=other: _replace(lock, a, b), re.escape(path))
    for path in list(pins)[:3]:
        yield Alteration("pins", f"the path of {path}", lambda p=path: _replace(lock, p, f"{p}x"), re.escape(path))
    for path, pin in list(pins.items())[3:6]:
        yield Alteration("pins", f"the size of {path}",
                         lambda p=pin: _replace(lock, f"size: {p.size_bytes}\n", f"size: {p.size_bytes + 1}\n"),
                         r"data/.* bytes, but dvc.lock pins")  # fmt: skip
    yield Alteration("pins", "dvc.lock is gone", lock.unlink, "dvc.lock does not pin")


def _replace(file: Path, before: str, after: str) -> None:
    content = file.read_text()
    assert before in content
    file.write_text(content.replace(before, after))


def _approvers(history: History) -> Iterator[Alteration]:
    """The list of those who may approve."""
    file = history.workspace.root / "approvers"
    rng, said = random.Random(SEED + 4), "the list of approvers"
    for number in range(6):
        draw = random.Random(rng.random())
        yield Alteration("people", f"bit {number} of the approvers", lambda r=draw: flip(file, r), said)
    lines = file.read_text().splitlines(keepends=True)
    for number in range(1, len(lines)):
        kept = "".join(lines[:number] + lines[number + 1 :])
        yield Alteration("people", f"line {number + 1} of the approvers gone", lambda k=kept: file.write_text(k), said)
    stranger = lines[1].replace(ALICE, "mallory@example.org")
    yield Alteration("people", "an approver more", lambda: file.write_text("".join(lines) + stranger), said)
    yield Alteration("people", "no approvers", file.unlink, said)


def _forged(history: History) -> Iterator[Alteration]:
    """Entries that are appended as they should be, but tell what is not so."""
    given = [r for r in history.entries if r.entry.kind == "approval"]
    first, second, third = given

    def append(entry: Entry) -> Recorded:
        return open_ledger(history.workspace).append(entry)

    def approval(changed: Recorded = first, **facts: Any) -> Entry:
        return changed.entry.model_copy(update={"facts": {**changed.entry.facts, **facts}})

    def beside(other: Recorded) -> Entry:
        return first.entry.model_copy(update={"inputs": other.entry.inputs})

    for recorded in given:
        yield Alteration(
            "forged", f"approval {recorded.sequence} again", lambda e=recorded.entry: append(e), "replayed"
        )
    yield Alteration("forged", "an approval for another environment",
                     lambda: append(approval(environment="production")), "statement says environment 'staging'")  # fmt: skip
    yield Alteration(
        "forged",
        "an approval by another person",
        lambda: append(approval(approver=BOB)),
        f"approval of {BOB}.*does not hold",
    )
    yield Alteration("forged", "an approval beside another model", lambda: append(beside(third)), "it stands beside")
    yield Alteration("forged", "an approval with another's signature",
                     lambda: append(approval(signature=second.entry.facts["signature"])), "does not match")  # fmt: skip
    yield Alteration("forged", "an approval under another list",
                     lambda: append(approval(approvers="")), "list of approvers of that time")  # fmt: skip
    yield Alteration("forged", "an approval with another's fingerprint",
                     lambda: append(approval(third, key="SHA256:x")), "it says that the key is SHA256:x")  # fmt: skip
    yield Alteration("forged", "an approval by the submitter",
                     lambda: append(_signed(history, third, ALICE, approver="submitter@example.org")), "does not hold")  # fmt: skip
    yield Alteration("forged", "an approval by a stranger's key",
                     lambda: append(_signed(history, third, BOB, approver=ALICE)), "is not listed for")  # fmt: skip
    yield Alteration("forged", "an approval after the key's last day",
                     lambda: append(_signed(history, third, CAROL)), f"approval of {CAROL}.*may not sign")  # fmt: skip
    past = datetime(2019, 6, 1, tzinfo=UTC)
    yield Alteration("forged", "the same with the clock set back",
                     lambda: _dated(history, append(_signed(history, third, CAROL, time=past.isoformat())), past),
                     "a clock was set back")  # fmt: skip
    yield Alteration("forged", "an approval signed long before it was entered",
                     lambda: append(_signed(history, third, ALICE, time=past.isoformat())), "a clock was set")  # fmt: skip
    yield Alteration("forged", "an approval signed over another ledger",
                     lambda: append(_signed(history, third, ALICE, ledger={"sequence": 3, "digest": "sha256:" + "0" * 64})),
                     "signed over another ledger")  # fmt: skip
    ended = Entry(kind="run", job="recipe", status="done", run=history.entries[0].entry.run)
    yield Alteration("forged", "a clock set back", lambda: _dated(history, append(ended), past), "a clock was set back")
    future = datetime.now(UTC) + timedelta(days=2)
    yield Alteration(
        "forged", "a clock set forward", lambda: _dated(history, append(ended), future), "has not come yet"
    )
    yield from _forged_stages(history, append)


def _forged_stages(history: History, append: Callable[[Entry], Recorded]) -> Iterator[Alteration]:
    stage = next(r.entry for r in reversed(history.entries) if r.entry.job == "prefer" and r.entry.status == "ran")
    promoted = next(
        r.entry for r in reversed(history.entries) if r.entry.kind == "promotion" and r.entry.status == "done"
    )
    registered = next(r.entry for r in history.entries if r.entry.kind == "registration")
    rolled_back = history.entries[-1].entry

    def changed(entry: Entry, **update: Any) -> Callable[[], object]:
        return lambda: append(entry.model_copy(update=update))

    def facts(entry: Entry, **update: Any) -> Callable[[], object]:
        return changed(entry, facts={**entry.facts, **update})

    other = tuple(
        Edge(role=e.role, artifact=e.artifact.model_copy(update={"digest": "sha256:" + "1" * 64})) for e in stage.inputs
    )
    yield Alteration("forged", "a stage with other inputs", changed(stage, inputs=other), "stage key is not that")
    yield Alteration("forged", "a stage with another seed", facts(stage, seed=7), "stage key is not that")
    yield Alteration("forged", "a stage with other code", facts(stage, code_digest="sha256:2"), "stage key is not that")
    yield Alteration("forged", "a stage with other settings", facts(stage, config={}), "configuration is not the one")
    yield Alteration("forged", "a stage after its run's end", changed(stage), "after its end")
    yield Alteration("forged", "a stage of no run", changed(stage, run="20200101-000000-aaaa"), "has no folder")
    yield Alteration(
        "forged", "a stage that MLflow does not know", facts(stage, mlflow_run_id="0"), "MLflow run 0 .* is gone"
    )
    reused = stage.model_copy(update={"status": "reused", "outputs": registered.outputs[:1]})
    yield Alteration("forged", "other outputs reused", changed(reused), "reuses other outputs")
    nothing = facts(reused, key="sha256:" + "3" * 64)
    yield Alteration("forged", "what nobody made reused", nothing, "reuses what no entry before it made")
    yield Alteration(
        "forged", "a promotion that nobody intended", facts(promoted, intent=1, version="7"), "nobody intended"
    )
    yield Alteration(
        "forged", "a promotion of nothing", facts(promoted, source="r1kit-candidate/9"), "which no entry made"
    )
    yield Alteration("forged", "a promotion with another's evidence", changed(promoted, outputs=registered.outputs),
                     "is not that of r1kit-candidate")  # fmt: skip
    yield Alteration("forged", "a second registration", changed(registered), "a second time")
    yield Alteration(
        "forged",
        "a registration of another model",
        changed(registered, inputs=stage.inputs),
        "not the model that was to be",
    )
    yield Alteration("forged", "a second rollback", changed(rolled_back), "not to the model that held it before")


def _signed(history: History, like: Recorded, who: str, *, approver: str = "", **changes: Any) -> Entry:
    """An approval like another, signed by somebody's real key over a changed statement."""
    statement = {**json.loads(like.entry.facts["statement"]), "approver": approver or who}
    statement |= {"time": datetime.now(UTC).isoformat(timespec="seconds"), **changes}
    key = sshsig.load_key(history.made.keys[who], lambda: "")
    message = canonical_json(statement)
    facts = {
        **like.entry.facts,
        "approver": approver or who,
        "key": sshsig.fingerprint(sshsig.wire_public_key(key.public_key())),
        "statement": message.decode(),
        "signature": sshsig.sign(message, key, NAMESPACE),
    }
    return like.entry.model_copy(update={"facts": facts})


def _dated(history: History, recorded: Recorded, time: datetime) -> None:
    """Give the last entry another time, as a machine with a wrong clock would have written it."""
    file = history.entry_file(recorded.sequence)
    event = json.loads(file.read_bytes())
    event["eventTime"] = time.isoformat(timespec="milliseconds")
    file.write_bytes(canonical_json(event))
