"""The ledger cannot be altered unnoticed, and a number is taken once."""

import json
import multiprocessing
from pathlib import Path

import pytest

from tasks.artifacts import Artifact
from tasks.ledger import GENESIS, Edge, Entry, Head, Ledger, LedgerMoved, stage_entry

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
