"""Approving from another machine that reaches only the ledger, and promotions from several machines at once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.ledger import Edge, Entry, open_ledger
from tasks.lineage import resolve_model
from tasks.promotion import promote, rollback
from tasks.recovery import LEASE_SECONDS, environment_lock, finish, recover, undo
from tasks.tracking import client_of
from tasks.vault import Copies
from tasks.workspace import Workspace
from tests.tasks.promoted import CONTEXT, FREE, assert_whole, candidate, held, run_apart
from tests.tasks.recipe import approver

ALICE, BOB = "alice@example.org", "bob@example.org"


def r1(home: Path, ledger: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    """The command line on a machine of its own: another HOME, another workspace, the ledger's address, nothing else."""
    home.mkdir(exist_ok=True)
    own = {"HOME": str(home), "R1_HOME": str(home / "r1"), "R1_LEDGER": str(ledger), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *command], env={**own, "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_approvals_come_from_machines_that_reach_only_the_ledger(tracked: Workspace, tmp_path: Path) -> None:
    candidate(tracked, stored=False)
    people = tmp_path / "approvers"
    for who in (ALICE, BOB):
        approver(tmp_path, who)
    strict = FREE.model_copy(update={"approvals": {"staging": 2}})
    for number, who in enumerate((ALICE, BOB)):
        place, asked = tmp_path / f"machine-{number}", ("--set", "promotion.approvals={staging: 2}")
        shown = r1(place, tracked.ledger_dir, "pending", "--as", who, "--approvers", str(people), *asked, "--json")
        waiting = json.loads(shown.stdout)
        assert [(row["model"], row["to"], row["needed"]) for row in waiting] == [
            ("r1kit-candidate/1", "staging", 2 - number)
        ], shown.stderr
        with pytest.raises(ValueError, match=f"{number} valid approvals for staging"):
            promote(tracked, "r1", "staging", settings=strict, approvers=people)
        key = str(tmp_path / f"{who}.key")
        done = r1(place, tracked.ledger_dir, "approve", "r1", "--to", "staging", "--as", who, "--key", key,
                  "--approvers", str(people))  # fmt: skip
        assert done.returncode == 0 and f"{who} approved r1 for staging" in done.stdout, done.stderr
        assert not list((place / "r1").glob("mlflow*")) and not (place / "r1" / "artifacts").exists()
        again = r1(place, tracked.ledger_dir, "pending", "--as", who, "--approvers", str(people), *asked)
        assert "nothing waits" in again.stdout
    # Every command was a process of its own: nothing was kept running while the approvals were waited for.
    assert run_apart(_promote_strictly, tracked, people) == 0
    assert held(tracked, "staging") == ["1"]


def _promote_strictly(workspace: Workspace, people: Path) -> None:
    strict = FREE.model_copy(update={"approvals": {"staging": 2}})
    promote(workspace, "r1", "staging", settings=strict, approvers=people)


def test_a_name_of_several_families_is_ambiguous_there(tracked: Workspace, tmp_path: Path) -> None:
    from tasks.register import register

    candidate(tracked, stored=False)
    register(tracked, name="other", run="run-1")
    approver(tmp_path)
    options = ("--to", "staging", "--as", ALICE, "--key", str(tmp_path / f"{ALICE}.key"),
               "--approvers", str(tmp_path / "approvers"))  # fmt: skip
    before = len(open_ledger(tracked).entries())
    done = r1(tmp_path / "machine", tracked.ledger_dir, "approve", "candidate", *options)
    assert done.returncode == 1 and "ambiguous here: the ledger has models of other, r1kit" in done.stderr
    assert len(open_ledger(tracked).entries()) == before
    assert r1(tmp_path / "machine", tracked.ledger_dir, "approve", "other-candidate/1", *options).returncode == 0


def machine(tracked: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "elsewhere") -> Workspace:
    """A workspace of its own that shares the ledger, MLflow and the signing key."""
    monkeypatch.setenv("R1_LEDGER", str(tracked.ledger_dir))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracked.mlflow_uri)
    other = Workspace(tmp_path / name)
    other.root.mkdir()
    other.keys_dir.symlink_to(tracked.keys_dir)
    return other


def begun_at(workspace: Workspace, by: str) -> Any:
    """An intent to promote, as another machine would write it."""
    model = resolve_model("candidate", workspace)
    facts = {"name": "r1kit-staging", "environment": "staging", "model": "r1", "source": "r1kit-candidate/1",
             "previous": "", "by": by}  # fmt: skip
    edges = (Edge(role="model", artifact=model.artifact),)
    entry = Entry(kind="promotion", job="promote-staging", status="intended", inputs=edges, facts=facts)
    return open_ledger(workspace).append(entry)


def test_what_another_machine_began_is_left_to_it_for_a_while(
    tracked: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidate(tracked)
    intent = begun_at(tracked, "elsewhere:/r1")
    with pytest.raises(ValueError, match=r"under way \(from elsewhere:/r1"):
        promote(tracked, "r1", "staging", settings=FREE)
    with pytest.raises(ValueError, match=r"under way \(from elsewhere:/r1"):
        rollback(tracked, "staging")
    monkeypatch.setattr("tasks.recovery.LEASE_SECONDS", 0.0)
    assert LEASE_SECONDS > 0
    promote(tracked, "r1", "staging", settings=FREE)
    # The other machine was not dead but slow: what it ends now was ended already.
    model = resolve_model("candidate", tracked)
    assert model.signature and model.evidence
    copies = Copies(model.artifact, model.signature, model.evidence)
    with pytest.raises(ValueError, match="undone by another command meanwhile"):
        finish(tracked, open_ledger(tracked), intent, copies, "7", "run")
    assert undo(tracked, open_ledger(tracked), intent).entry.status == "undone"
    assert held(tracked, "staging") == ["1"] and open_ledger(tracked).verify() == []
    with environment_lock(tracked):
        assert recover(tracked) == []


def _compete(workspace: Workspace, reference: str, start: Any, answer: Any) -> None:
    client_of(workspace).search_experiments()
    start.wait(100)
    try:
        promote(workspace, reference, "staging", settings=FREE)
        answer.put("won")
    except ValueError as error:
        answer.put(str(error))


def test_of_several_machines_at_once_one_wins(
    tracked: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = [candidate(tracked, f"run-{number}") for number in range(4)]
    machines = [machine(tracked, tmp_path, monkeypatch, f"machine-{number}") for number in range(4)]
    start, answers = CONTEXT.Barrier(4), CONTEXT.Queue()
    addresses = {name: os.environ[name] for name in ("R1_LEDGER", "MLFLOW_TRACKING_URI")}
    rivals = [
        CONTEXT.Process(target=_there, args=(addresses, place, reference, start, answers))
        for place, reference in zip(machines, references, strict=True)
    ]
    for rival in rivals:
        rival.start()
    said = [answers.get(timeout=120) for _ in rivals]
    for rival in rivals:
        rival.join(60)
    assert said.count("won") == 1, said
    assert all(
        words == "won" or "under way" in words or "quicker" in words or "changed hands" in words for words in said
    )
    assert len(held(tracked, "staging")) == 1
    assert_whole(tracked, "staging")


def _there(addresses: dict[str, str], *arguments: Any) -> None:
    os.environ.update(addresses)
    _compete(*arguments)
