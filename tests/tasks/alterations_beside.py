"""Single alterations beside the ledger: MLflow's registry and runs, DVC's pins, the list of approvers."""

import random
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tasks.pins import pinned_files
from tests.tasks.alterations import SEED, Alteration, History, flip
from tests.tasks.finished import ALICE, PROFILE


def in_other_stores(history: History) -> list[Alteration]:
    """Every alteration of what stands beside the ledger."""
    return [
        *_aliases(history), *_tags(history), *_versions(history), *_tracked_runs(history), *_pins(history),
        *_approvers(history),
    ]  # fmt: skip


def _aliases(history: History) -> Iterator[Alteration]:
    table = "registered_model_aliases"
    for name, alias in history.sql(f"SELECT name, alias FROM {table} ORDER BY 1, 2"):
        for title, act in (("moved", f"UPDATE {table} SET version = version + 1"), ("deleted", f"DELETE FROM {table}")):
            change = partial(history.sql, f"{act} WHERE name = ? AND alias = ?", name, alias)
            yield Alteration("registry", f"{name}@{alias} {title}", change, f"{name}@{alias}")
    for name, alias in (("r1kit-candidate", "current"), ("r1kit-staging", "previous"), ("r1kit-production", "best")):
        change = partial(history.sql, f"INSERT INTO {table} (name, alias, version) VALUES (?, ?, 1)", name, alias)
        yield Alteration("registry", f"{name}@{alias} added", change, f"{name}@{alias}")


def _tags(history: History) -> Iterator[Alteration]:
    """Every tag altered; every one of registered models and half of the versions' deleted."""
    for name, version, key in history.sql("SELECT name, version, key FROM model_version_tags ORDER BY 1, 2, 3"):
        where, said = "name = ? AND version = ? AND key = ?", rf"{name}/{version}( |:).*({re.escape(key)}|ledger entry)"
        if (name, version) == ("r1kit-staging", 1):
            continue  # like its sisters
        both = (name, version) in (("r1kit-candidate", 1), ("r1kit-production", 1))
        yield from _row(history, "model_version_tags", where, (name, version, key), said, both)
    for name, key in history.sql("SELECT name, key FROM registered_model_tags ORDER BY 1, 2"):
        said = rf"{name}( |:).*({re.escape(key)}|ledger entry)"
        yield from _row(history, "registered_model_tags", "name = ? AND key = ?", (name, key), said, True)


def _row(
    history: History, table: str, where: str, values: tuple[Any, ...], said: str, both: bool
) -> Iterator[Alteration]:
    """A row's value altered; the row deleted, where both are wanted."""
    title = f"{table} {' '.join(map(str, values))}"
    altered, deleted = f"UPDATE {table} SET value = value || 'x' WHERE {where}", f"DELETE FROM {table} WHERE {where}"
    yield Alteration("registry", f"{title} altered", partial(history.sql, altered, *values), said)
    if both:
        yield Alteration("registry", f"{title} deleted", partial(history.sql, deleted, *values), said)


def _versions(history: History) -> Iterator[Alteration]:
    for name, version in (("r1kit-candidate", 2), ("r1kit-staging", 1), ("r1kit-production", 1)):
        for change in ("source = 'runs:/0/model'", "run_id = '0'", "current_stage = 'Deleted_Internal'"):
            act = partial(
                history.sql, f"UPDATE model_versions SET {change} WHERE name = ? AND version = ?", name, version
            )
            yield Alteration("registry", f"{name}/{version}: {change}", act, rf"{name}/{version} ")
    columns = "creation_time, status, current_stage, source, run_id"
    extra = (
        f"INSERT INTO model_versions (name, version, {columns}) SELECT name, 9, {columns} FROM model_versions "
        "WHERE name = 'r1kit-production' AND version = 1"
    )
    yield Alteration(
        "registry", "a version put in", partial(history.sql, extra), "r1kit-production/9 is in the registry"
    )


def _tracked_runs(history: History) -> Iterator[Alteration]:
    """What MLflow tells of the runs of stages."""
    rng = random.Random(SEED + 3)
    runs = {str(r.entry.facts.get("mlflow_run_id")) for r in history.entries if r.entry.status == "ran"}
    for run_id in rng.sample(sorted(runs), 3):
        for change in ("status = 'RUNNING'", "lifecycle_stage = 'deleted'"):
            act = partial(history.sql, f"UPDATE runs SET {change} WHERE run_uuid = ?", run_id)
            yield Alteration("runs", f"{run_id}: {change}", act, run_id)
    for table, wanted, changed in (
        ("tags", "r1kit.", "value || 'x'"), ("params", "", "value || 'x'"), ("latest_metrics", "final_", "value + 1"),
    ):  # fmt: skip
        rows = history.sql(f"SELECT run_uuid, key FROM {table} ORDER BY 2, 1")
        own = [(run, key) for run, key in rows if run in runs and key.startswith(wanted) and key != "r1kit.run"]
        for run_id, key in rng.sample(own, 4):
            for act in (f"UPDATE {table} SET value = {changed}", f"DELETE FROM {table}"):
                change = partial(history.sql, f"{act} WHERE run_uuid = ? AND key = ?", run_id, key)
                yield Alteration("runs", f"{run_id}, {key}: {act}", change, rf"{run_id}.*{re.escape(key)}")


def _pins(history: History) -> Iterator[Alteration]:
    """Every pin's digest; the size and the path of some."""
    lock, pins = history.root / "dvc.lock", pinned_files(PROFILE, history.root)
    for path, pin in pins.items():
        other = pin.md5[:-1] + ("0" if pin.md5[-1] != "0" else "1")
        yield Alteration("pins", f"the pin of {path}", partial(_replace, lock, pin.md5, other), re.escape(path))
    for path in list(pins)[:2]:
        yield Alteration("pins", f"the path of {path}", partial(_replace, lock, path, f"{path}x"), re.escape(path))
    for path, pin in list(pins.items())[2:4]:
        old, new = f"md5: {pin.md5}\n      size: {pin.size_bytes}", f"md5: {pin.md5}\n      size: {pin.size_bytes + 1}"
        yield Alteration("pins", f"the size of {path}", partial(_replace, lock, old, new), re.escape(path))
    yield Alteration("pins", "dvc.lock is gone", lock.unlink, "dvc.lock does not pin")


def _replace(file: Path, before: str, after: str) -> None:
    content = file.read_text()
    assert before in content, f"{file} has no {before!r}"
    file.write_text(content.replace(before, after))


def _approvers(history: History) -> Iterator[Alteration]:
    """The list of those who may approve."""
    file, rng, said = history.workspace.root / "approvers", random.Random(SEED + 4), "the list of approvers"
    for number in range(4):
        yield Alteration("people", f"bit {number} of it", partial(flip, file, random.Random(rng.random())), said)
    lines = file.read_text().splitlines(keepends=True)
    for number in range(1, len(lines)):
        kept = "".join(lines[:number] + lines[number + 1 :])
        yield Alteration("people", f"line {number + 1} gone", partial(file.write_text, kept), said)
    stranger = lines[1].replace(ALICE, "mallory@example.org")
    yield Alteration("people", "a line more", partial(file.write_text, "".join(lines) + stranger), said)
    yield Alteration("people", "no list", file.unlink, said)
