"""The ledger cannot be altered unnoticed, and a number is taken once."""

import json
import multiprocessing
from pathlib import Path
from typing import get_args

import pytest

from tasks.artifacts import Artifact
from tasks.ledger import GENESIS, Edge, Entry, EntryKind, Head, Ledger, LedgerMoved, open_ledger, stage_entry
from tasks.signing import signing_key
from tasks.workspace import Workspace
from tests.tasks.storm import faults, storm

MODEL = Artifact(kind="model", uri="file:///m", digest="sha256:" + "a" * 64, size_bytes=3)
DATA = Artifact(kind="problems", uri="file:///d", digest="sha256:" + "b" * 64, size_bytes=4)


def entry(job: str = "zero") -> Entry:
    return stage_entry(
        stage=job, status="ran", run="run-1", key="k", code_digest="c", config={"steps": 3}, seed=1,
        inputs={"problems": DATA}, outputs={"model": MODEL}, metrics={"loss": float("nan"), "kl": 0.5},
    )  # fmt: skip


def test_entries_come_back_as_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.append(entry())
    ledger.append(Entry(kind="approval", job="approve", status="done", inputs=(Edge(role="model", artifact=MODEL),)))
    first, second = Ledger(tmp_path / "ledger").entries()
    assert first.entry == entry() and second.previous == first.digest and first.previous == GENESIS
    assert first.entry.input("problems") == DATA and first.entry.output("model") == MODEL
    assert first.entry.facts["metrics"] == {"loss": "nan", "kl": 0.5}
    assert ledger.verify() == []


def test_an_entry_is_an_openlineage_run_event(tmp_path: Path) -> None:
    Ledger(tmp_path).append(entry())
    event = json.loads((tmp_path / "00000001.json").read_text())
    assert {"eventType", "eventTime", "producer", "schemaURL", "run", "job", "inputs", "outputs"} <= set(event)
    assert event["eventType"] == "COMPLETE" and event["job"]["name"] == "zero"
    assert event["inputs"][0]["name"] == f"problems@{DATA.digest}"
    for facet in [*event["run"]["facets"].values(), event["outputs"][0]["facets"]["r1kit_artifact"]]:
        assert facet["_producer"] and facet["_schemaURL"]


def test_an_altered_entry_breaks_the_chain(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for _ in range(3):
        ledger.append(entry())
    second = tmp_path / "00000002.json"
    second.write_text(second.read_text().replace('"steps":3', '"steps":4'))
    assert ledger.verify() == ["ledger entry 3 does not follow from entry 2: one was altered"]


def test_a_missing_or_torn_entry_is_named(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for _ in range(4):
        ledger.append(entry())
    (tmp_path / "00000002.json").unlink()
    (tmp_path / "00000004.json").write_text("{")
    faults = ledger.verify()
    assert faults[0] == "ledger entries 2 to 2 are missing"
    assert "00000004.json cannot be read" in faults[1]
    with pytest.raises(ValueError, match=r"00000004\.json cannot be read"):
        Ledger(tmp_path).entries()


def test_append_after_a_head_that_moved_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    empty = ledger.head()
    assert empty == Head(0, GENESIS)
    ledger.append(entry(), after=empty)
    with pytest.raises(LedgerMoved, match="from entry 0 to 1"):
        ledger.append(entry(), after=empty)


def test_every_kind_of_event_has_its_entry(tmp_path: Path) -> None:
    """Validations and evaluations are stages, and stages are recorded by `run_stage`; a deletion is one of its own."""
    ledger = Ledger(tmp_path)
    for kind in get_args(EntryKind):
        ledger.append(Entry(kind=kind, job=kind, status="done", outputs=(Edge(role="model", artifact=MODEL),)))
    assert [r.entry.kind for r in Ledger(tmp_path).entries()] == list(get_args(EntryKind))
    assert len(Ledger(tmp_path).entries().of_kind("deletion", "rollback")) == 2


def test_entries_alike_are_not_the_same(tmp_path: Path) -> None:
    """Each has an identity of its own, by which a writer knows it again."""
    ledger = Ledger(tmp_path)
    for _ in range(2):
        ledger.append(entry())
    first, second = (json.loads((tmp_path / f"0000000{n}.json").read_bytes())["run"]["runId"] for n in (1, 2))
    assert first != second


@pytest.mark.parametrize("spoilt", [b"", b"not a database", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_an_index_that_is_gone_or_spoilt_is_made_anew(workspace: Workspace, spoilt: bytes) -> None:
    for _ in range(3):
        open_ledger(workspace).append(entry())
    before = list(open_ledger(workspace).entries())
    for path in workspace.ledger_index.parent.iterdir():
        path.unlink()
    workspace.ledger_index.write_bytes(spoilt)
    history = open_ledger(workspace).entries()
    assert list(history) == before and len(history.with_output(MODEL.digest)) == 3


def test_the_index_follows_the_ledger(workspace: Workspace) -> None:
    """Also where entries were taken out, or another ledger was put in its place."""
    ledger = open_ledger(workspace)
    for job in ("zero", "reason", "prefer"):
        ledger.append(entry(job))
    seen = ledger.entries()
    assert [r.entry.job for r in seen] == ["zero", "reason", "prefer"] and seen.jobs() != []
    ledger.append(entry("distill"))
    assert len(seen) == 3 and [r.entry.job for r in seen.with_output(MODEL.digest)] == ["zero", "reason", "prefer"]
    (workspace.ledger_dir / "00000002.json").unlink()
    assert [r.entry.job for r in open_ledger(workspace).entries()] == ["zero", "prefer", "distill"]
    for path in workspace.ledger_dir.iterdir():
        path.unlink()
    for job in ("base", "zero", "reason", "refine"):
        Ledger(workspace.ledger_dir).append(entry(job))
    later = open_ledger(workspace).entries()
    assert [r.entry.job for r in later.with_input(DATA.digest)] == ["base", "zero", "reason", "refine"]
    assert later[-1].entry.job == "refine" and [r.entry.job for r in later[1:3]] == ["zero", "reason"]


def test_a_ledger_in_another_folder(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1_LEDGER", str(tmp_path / "elsewhere"))
    open_ledger(workspace).append(entry())
    assert (tmp_path / "elsewhere" / "00000001.json").is_file() and not workspace.ledger_dir.exists()


def test_64_writers_killed_at_random_lose_and_double_nothing(workspace: Workspace, tmp_path: Path) -> None:
    signing_key(workspace)
    assert storm([workspace] * 64, 6, tmp_path / "log", kill=24, within=2.0, seed=2) > 0
    assert faults(workspace, tmp_path / "log") == []
    assert len(open_ledger(workspace).entries()) >= 40 * 6


def _write(directory: Path, count: int) -> None:
    for _ in range(count):
        Ledger(directory).append(entry())


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, 10)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    ledger = Ledger(tmp_path)
    assert len(ledger.entries()) == 40 and ledger.verify() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n:08d}.json" for n in range(1, 41)]
