"""Promotion and rollback killed at any of their steps are finished or undone by the next command; of many one wins."""

import queue
from typing import Any

import pytest

from tasks.artifacts import verify
from tasks.ledger import open_ledger
from tasks.lineage import history, resolve_model
from tasks.promotion import promote, rollback
from tasks.reach import unfinished
from tasks.tracking import client_of
from tasks.workspace import Workspace
from tests.tasks.promoted import (
    CONTEXT,
    FREE,
    assert_whole,
    candidate,
    files,
    held,
    killed_at,
    registry,
    run_apart,
    through,
)

RIVALS = 16


def to_staging(workspace: Workspace, reference: str = "r1") -> None:
    promote(workspace, reference, "staging", settings=FREE)


def roll_back(workspace: Workspace) -> None:
    rollback(workspace, "staging")


def assert_never_half(workspace: Workspace) -> None:
    """Ledger, registry and files agree: every version is whole, nothing else is there."""
    ledger = open_ledger(workspace)
    entries = ledger.entries()
    assert ledger.verify() == [] and unfinished(entries) == []
    stack = history(entries, "r1kit", "staging")
    assert all(verify(edge.artifact) for r in stack for edge in r.entry.outputs)
    now = registry(workspace)
    wanted = {f"r1kit-staging/{r.entry.facts['version']}" for r in entries
              if r.entry.kind == "promotion" and r.entry.status == "done"}  # fmt: skip
    assert {name for name in now if name.startswith("r1kit-staging/")} == wanted
    places = [r.entry.facts["version"] for r in stack][::-1]
    assert now["aliases"].get("r1kit-staging", {}) == dict(zip(("current", "previous"), places, strict=False))
    homes = {name.split("/")[3] for name in files(workspace.root) if name.startswith("artifacts/environments/r1kit-")}
    made = {str(r.entry.facts["intent"]) for r in entries if r.entry.kind == "promotion" and r.entry.status == "done"}
    assert homes == made, "copies were left that no promotion has"


@pytest.mark.parametrize("instant", [1, 2, 20, 40, 45, 58, 59, 60, 63, 64, 66])
def test_a_promotion_killed_at_any_instant(tracked: Workspace, instant: int) -> None:
    through(tracked, "run-1", to=("staging",))
    candidate(tracked, "run-2")
    assert killed_at(instant, to_staging, tracked), "it was done before"
    if held(tracked, "staging") == ["1"]:
        assert run_apart(to_staging, tracked) == 0, "the next command goes through"
    else:
        assert run_apart(to_staging, tracked) == 1, "staging holds it already"
    assert_never_half(tracked)
    assert len(held(tracked, "staging")) == 2
    assert resolve_model("staging", tracked).artifact.digest == resolve_model("r1", tracked).artifact.digest
    assert_whole(tracked, "staging", "r1kit-staging/1")


@pytest.mark.parametrize("instant", [1, 2, 4, 6])
def test_a_rollback_killed_at_any_instant(tracked: Workspace, instant: int) -> None:
    through(tracked, "run-1", "run-2", to=("staging",))
    failed = resolve_model("staging", tracked)
    made = files(tracked.artifacts_dir)
    assert killed_at(instant, roll_back, tracked), "it was done before"
    if held(tracked, "staging") == ["1", "2"]:
        assert run_apart(roll_back, tracked) == 0
    else:
        assert run_apart(roll_back, tracked) == 1, "there is nothing more to return to"
    assert held(tracked, "staging") == ["1"]
    assert_never_half_after_rollback(tracked)
    assert files(tracked.artifacts_dir) == made, "a rollback computes and copies nothing"
    assert failed.evidence and verify(failed.evidence) and verify(failed.artifact), "the failed model's evidence stays"
    assert_whole(tracked, "staging", "r1kit-staging/2")


def assert_never_half_after_rollback(workspace: Workspace) -> None:
    assert open_ledger(workspace).verify() == []
    assert registry(workspace)["aliases"]["r1kit-staging"] == {"current": "1"}


def _compete(workspace: Workspace, number: int, start: Any, answer: Any) -> None:
    client_of(workspace).search_experiments()
    start.wait(100)
    try:
        to_staging(workspace, f"r1kit-candidate/{number}")
        answer.put("won")
    except ValueError as error:
        answer.put(str(error))


def test_of_sixteen_at_once_exactly_one_wins(tracked: Workspace) -> None:
    for number in range(1, 5):
        candidate(tracked, f"run-{number}")
    start, answers = CONTEXT.Barrier(RIVALS), CONTEXT.Queue()
    rivals = [CONTEXT.Process(target=_compete, args=(tracked, n % 4 + 1, start, answers)) for n in range(RIVALS)]
    for rival in rivals:
        rival.start()
    said = [_answer(answers) for _ in rivals]
    for rival in rivals:
        rival.join(60)
    assert said.count("won") == 1, said
    lost = [words for words in said if words != "won"]
    assert all("\n" not in words and ("under way" in words or "changed hands" in words) for words in lost), lost
    assert len(held(tracked, "staging")) == 1
    assert_never_half(tracked)


def _answer(answers: Any) -> str:
    try:
        return answers.get(timeout=120)
    except queue.Empty:
        return "nothing"
