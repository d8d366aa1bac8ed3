"""Approvals: by somebody else, with a key of their own, on exactly this model and evidence."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks import sshsig
from tasks.approvals import NAMESPACE, approvals_of, approve, submitter, valid_approvers
from tasks.ledger import Edge, Entry, Recorded, open_ledger
from tasks.lineage import ResolvedModel, resolve_model
from tasks.workspace import Workspace
from tests.tasks.recipe import Recipe, approver
from tests.tasks.test_sshsig import write_key

ALICE, BOB = "alice@example.org", "bob@example.org"


@pytest.fixture
def registered(workspace: Workspace) -> ResolvedModel:
    """A registered model, as far as the ledger knows: approvals need no MLflow."""
    model = Recipe(workspace).make()
    evidence = model.model_copy(update={"kind": "evidence", "digest": "sha256:" + "e" * 64})
    facts = {
        "name": "r1kit-candidate", "version": "1", "environment": "candidate", "model": "r1",
        "submitter": "submitter@example.org", "mlflow_run_id": "",
    }  # fmt: skip
    outputs = (Edge(role="model", artifact=model), Edge(role="evidence", artifact=evidence))
    open_ledger(workspace).append(
        Entry(kind="registration", job="register", status="done", outputs=outputs, facts=facts)
    )
    return resolve_model("candidate", workspace)


def give(workspace: Workspace, tmp_path: Path, who: str = ALICE, to: Any = "staging", **options: Any) -> Recorded:
    options = {"key": tmp_path / f"{who}.key", "approvers": tmp_path / "approvers", **options}
    return approve(workspace, "r1", to, approver=who, **options)


def valid(workspace: Workspace, model: ResolvedModel, tmp_path: Path, to: str = "staging") -> list[str]:
    signers = sshsig.read_allowed_signers(tmp_path / "approvers")
    return valid_approvers(approvals_of(open_ledger(workspace).entries(), model, signers), to)


def test_an_approval_counts_for_its_environment(
    workspace: Workspace, registered: ResolvedModel, tmp_path: Path
) -> None:
    for who in (ALICE, BOB, ALICE):
        if not (tmp_path / f"{who}.key").exists():
            approver(tmp_path, who)
        give(workspace, tmp_path, who)
    assert valid(workspace, registered, tmp_path) == [ALICE, BOB]
    assert valid(workspace, registered, tmp_path, "production") == []


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen on this machine")
def test_ssh_keygen_verifies_the_ledgers_approval(
    workspace: Workspace, registered: ResolvedModel, tmp_path: Path
) -> None:
    approver(tmp_path)
    facts = give(workspace, tmp_path).entry.facts
    (tmp_path / "sig").write_text(facts["signature"])
    command = ["ssh-keygen", "-Y", "verify", "-f", "approvers", "-I", ALICE, "-n", NAMESPACE, "-s", "sig"]
    done = subprocess.run(command, input=facts["statement"], text=True, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_submitter_cannot_approve(workspace: Workspace, registered: ResolvedModel, tmp_path: Path) -> None:
    approver(tmp_path, "Submitter@example.org")
    with pytest.raises(ValueError, match="submitted the model; somebody else has to approve it"):
        give(workspace, tmp_path, "Submitter@example.org")
    line = (tmp_path / "approvers").read_text().replace("Submitter@", "submitter@")
    (tmp_path / "approvers").write_text(line + line.replace("submitter@example.org", ALICE))
    with pytest.raises(ValueError, match=r"also that of submitter@example\.org"):
        give(workspace, tmp_path, ALICE, key=tmp_path / "Submitter@example.org.key")
    assert not [r for r in open_ledger(workspace).entries() if r.entry.kind == "approval"]


def test_a_key_that_is_not_listed_cannot_approve(
    workspace: Workspace, registered: ResolvedModel, tmp_path: Path
) -> None:
    approver(tmp_path)
    write_key(tmp_path / "stranger")
    with pytest.raises(ValueError, match=f"is not listed for {ALICE}"):
        give(workspace, tmp_path, key=tmp_path / "stranger")


def test_a_protected_key_asks_the_environment(
    workspace: Workspace, registered: ResolvedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"{ALICE} {write_key(tmp_path / 'locked', 'secret')}\n"
    (tmp_path / "approvers").write_text(line)
    monkeypatch.setenv("R1_KEY_PASSPHRASE", "secret")
    give(workspace, tmp_path, key=tmp_path / "locked")
    assert valid(workspace, registered, tmp_path) == [ALICE]


def test_forged_and_revoked_approvals_do_not_count(
    workspace: Workspace, registered: ResolvedModel, tmp_path: Path
) -> None:
    approver(tmp_path)
    given = give(workspace, tmp_path).entry
    statement = given.facts["statement"].replace('"staging"', '"production"')
    forged = given.model_copy(update={"facts": {**given.facts, "environment": "production", "statement": statement}})
    moved = given.model_copy(update={"facts": {**given.facts, "environment": "production"}})
    for entry in (forged, moved):
        open_ledger(workspace).append(entry)
    signers = sshsig.read_allowed_signers(tmp_path / "approvers")
    faults = [a.fault for a in approvals_of(open_ledger(workspace).entries(), registered, signers)]
    assert faults == [
        None,
        "the signature does not match what it should have signed",
        "the signed statement says environment 'staging', not 'production'",
    ]
    (tmp_path / "approvers").write_text("# nobody\n")
    assert valid(workspace, registered, tmp_path) == []


def test_a_model_must_be_registered(workspace: Workspace, tmp_path: Path) -> None:
    approver(tmp_path)
    Recipe(workspace).make()
    with pytest.raises(ValueError, match="'r1' is not registered"):
        give(workspace, tmp_path)


def test_the_submitter_is_who_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1_SUBMITTER", " carol@example.org ")
    assert submitter() == "carol@example.org"
    monkeypatch.delenv("R1_SUBMITTER")
    assert "@" in submitter()
