"""r1 gc takes what nothing needs and no byte more, tells the ledger first, and is finished after a kill."""

import contextlib
import fcntl
import os
from pathlib import Path

import pytest

from r1kit.promotion import GcConfig
from tasks.artifacts import verify
from tasks.gc import collect, plan
from tasks.ledger import Edge, Entry, open_ledger
from tasks.lineage import resolve_model
from tasks.promotion import PromotionRefused, promote, rollback
from tasks.reach import environment_roots, needed_by, unfinished
from tasks.register import register
from tasks.store import fetch
from tasks.tracking import client_of, open_run
from tasks.workspace import Workspace
from tests.tasks.promoted import (
    CONTEXT,
    FREE,
    LAST_RUN,
    assert_whole,
    candidate,
    files,
    held,
    killed_at,
    registry,
    through,
)


def needed_now(workspace: Workspace) -> list[bool]:
    entries = open_ledger(workspace).entries()
    return [verify(artifact) for artifact in needed_by(entries, environment_roots(entries))]


def test_only_what_nothing_needs_goes(tracked: Workspace) -> None:
    candidate(tracked, "old")
    through(tracked, "run-1", "run-2", to=("staging",))
    candidate(tracked, "newest")
    shown = plan(tracked, LAST_RUN)
    assert {item.what for item in shown} == {
        "r1kit-candidate/1", "model of base, run old", "model of r1, run old", "validation of validate, run old",
        "evaluation of evaluate-base, run old", "evaluation of evaluate-r1, run old",
    }  # fmt: skip
    assert all(item.why and item.size_bytes > 0 for item in shown)
    assert "candidate of an older run" in {i.what: i.why for i in shown}["r1kit-candidate/1"]
    before, length = files(tracked.artifacts_dir), len(open_ledger(tracked).entries())
    assert plan(tracked, LAST_RUN) == shown and files(tracked.artifacts_dir) == before, "showing changed something"

    freed = collect(tracked, LAST_RUN, actor="alice")
    assert list(freed.items) == shown
    intended, done = open_ledger(tracked).entries()[length:]
    assert (intended.sequence, intended.entry.status, done.entry.status) == (freed.sequence, "intended", "done")
    assert intended.entry.facts["actor"] == "alice" and len(intended.entry.inputs) == len(shown)
    gone = set(before) - set(files(tracked.artifacts_dir))
    assert gone and all(any(item.uri.endswith(name) or f"{name}".startswith(item.uri.split("/artifacts/", 1)[1])
                            for item in shown) for name in gone)  # fmt: skip
    assert "r1kit-candidate/1" not in registry(tracked) and "r1kit-candidate/2" in registry(tracked)
    assert plan(tracked, LAST_RUN) == [] and collect(tracked, LAST_RUN).items == ()
    assert all(needed_now(tracked))
    assert_whole(tracked, "staging", "r1kit-staging/1", "candidate")
    assert rollback(tracked, "staging").version == "1"
    evidence = resolve_model("r1kit-candidate/1", tracked).evidence
    assert evidence and (fetch(evidence, tracked) / "evidence.json").is_file(), "a deleted model's evidence stays"
    with pytest.raises(PromotionRefused, match="is missing"):
        promote(tracked, "r1kit-candidate/1", "staging", settings=FREE)


def test_a_model_rolled_back_goes_but_not_its_evidence(tracked: Workspace) -> None:
    through(tracked, "run-1", "run-2", to=("staging",))
    rollback(tracked, "staging")
    candidate(tracked, "run-3")
    failed = resolve_model("r1kit-staging/2", tracked)
    assert failed.evidence and failed.signature
    shown = {item.what: item.why for item in plan(tracked, LAST_RUN)}
    assert "rolled back from staging" in shown["r1kit-staging/2"]
    assert "r1kit-staging/1" not in shown
    collect(tracked, LAST_RUN)
    assert not verify(failed.artifact) and verify(failed.evidence) and verify(failed.signature)
    assert_whole(tracked, "staging")
    assert {"r1kit-staging/1"} == {name for name in registry(tracked) if name.startswith("r1kit-staging/")}
    through(tracked, "run-4", to=("staging",))
    assert held(tracked, "staging") == ["1", "3"]


def test_what_was_made_again_can_be_promoted(tracked: Workspace) -> None:
    candidate(tracked, "run-1")
    candidate(tracked, "run-2")
    collect(tracked, LAST_RUN)
    again = candidate(tracked, "run-1")
    assert again == "r1kit-candidate/3", "a candidate whose bytes went is registered anew"
    promote(tracked, again, "staging", settings=FREE)
    assert_whole(tracked, "staging")


def test_leftovers_of_kills_and_failures_go(tracked: Workspace) -> None:
    candidate(tracked)
    failed = open_run(tracked, "zero")
    client_of(tracked).log_text(failed.run_id, "half", "model/weights")
    failed.close("FAILED")
    finished = tracked.work_dir / "prefer-run-1"
    fresh = tracked.work_dir / "unfinished"
    for directory in (finished, fresh):
        directory.mkdir(parents=True)
        (directory / "state").write_text("checkpoint")
    old = tracked.ledger_dir / ".123-abc"
    old.write_text("{")
    os.utime(old, (0, 0))
    (tracked.ledger_dir / ".456-def").write_text("{")
    found = {item.what: item for item in plan(tracked, LAST_RUN)}
    assert set(found) == {"MLflow run zero (failed)", "checkpoints prefer-run-1", "scratch file .123-abc"}
    collect(tracked, LAST_RUN)
    assert fresh.is_dir() and not finished.exists() and not old.exists()
    assert client_of(tracked).get_run(failed.run_id).info.status == "FAILED", "what was tracked stays"
    patient = GcConfig(keep_runs=1, keep_unfinished_days=0)
    assert {item.what for item in plan(tracked, patient)} == {"checkpoints unfinished"}


def test_it_waits_for_whoever_is_at_work(tracked: Workspace) -> None:
    candidate(tracked, "run-1")
    candidate(tracked, "run-2")
    with tracked.lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="a run is at work"):
            collect(tracked, LAST_RUN)
    model = resolve_model("r1kit-candidate/1", tracked)
    facts = {"name": "r1kit-staging", "environment": "staging", "model": "r1", "by": "elsewhere:/r1", "source": "x/1"}
    edges = (Edge(role="model", artifact=model.artifact),)
    entry = Entry(kind="promotion", job="promote-staging", status="intended", inputs=edges, facts=facts)
    open_ledger(tracked).append(entry)
    with pytest.raises(ValueError, match="a promotion is under way from elsewhere:/r1"):
        collect(tracked, LAST_RUN)
    assert verify(model.artifact) and plan(tracked, LAST_RUN) == [], "what is about to be promoted is needed"


@pytest.mark.parametrize("instant", [1, 2, 3, 4, 6, 7, 9, 12, 14])
def test_killed_at_any_instant_it_is_finished_by_the_next_call(tracked: Workspace, instant: int) -> None:
    candidate(tracked, "old")
    through(tracked, "run-1", to=("staging",))
    expected = {item.uri for item in plan(tracked, LAST_RUN)}
    before = files(tracked.root)
    assert killed_at(instant, collect, tracked, LAST_RUN), "it was done before"
    entries = open_ledger(tracked).entries()
    if not any(r.entry.kind == "deletion" for r in entries):
        lost = set(before) - set(files(tracked.root))
        assert not {name for name in lost if name.startswith("artifacts/")}, "bytes went before the ledger had it"
    collect(tracked, LAST_RUN)
    entries = open_ledger(tracked).entries()
    assert unfinished(entries, "deletion") == [] and open_ledger(tracked).verify() == []
    assert plan(tracked, LAST_RUN) == []
    assert not any(Path(uri.removeprefix("file://")).exists() for uri in expected)
    assert_whole(tracked, "staging")


def test_two_at_once_delete_once(tracked: Workspace) -> None:
    candidate(tracked, "old")
    through(tracked, "run-1", to=("staging",))
    rivals = [CONTEXT.Process(target=_collect, args=(tracked,)) for _ in range(4)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(120)
    deletions = [r.entry.status for r in open_ledger(tracked).entries() if r.entry.kind == "deletion"]
    assert deletions == ["intended", "done"]
    assert_whole(tracked, "staging")


def _collect(workspace: Workspace) -> None:
    with contextlib.suppress(ValueError):
        collect(workspace, LAST_RUN)


def test_registering_the_same_model_again_after_a_deletion(tracked: Workspace) -> None:
    candidate(tracked, "run-1")
    candidate(tracked, "run-2")
    assert register(tracked, run="run-2").new is False
    assert held(tracked, "staging") == []
