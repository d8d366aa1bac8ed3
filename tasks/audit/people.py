"""Who approved, on what evidence, and whether the signatures hold: by the keys of then, and by those of today."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks import sshsig
from tasks.approvals import approvals_of, approvers_file
from tasks.artifacts import digest_bytes
from tasks.audit.records import ApprovalRecord
from tasks.ledger import Recorded
from tasks.lineage import ResolvedModel, from_version, of_kind, version_entries
from tasks.sshsig import AllowedSigner
from tasks.workspace import Workspace

_SPEAKING = ("registration", "approval", "rollback")
"""Kinds of entries that decide whether an approval counts."""


def approvals(entries: Sequence[Recorded]) -> list[Recorded]:
    """Every approval in the ledger."""
    return of_kind(entries, "approval")


def approval_record(
    workspace: Workspace, entries: Sequence[Recorded], recorded: Recorded, approvers: Path | None = None
) -> ApprovalRecord:
    """An approval, verified against the approvers as they were listed when it was given, and as they are now."""
    facts = recorded.entry.facts
    statement = statement_of(facts)
    fault = _fault_then(workspace, entries, recorded, approvers)
    return ApprovalRecord(
        approver=str(facts.get("approver", "")),
        environment=str(facts.get("environment", "")),
        time=recorded.time,
        sequence=recorded.sequence,
        key=str(facts.get("key", "")),
        evidence_digest=str(statement.get("evidence_digest", "")),
        approvers_digest=str(facts.get("approvers_digest", "")),
        fault=fault,
        since=None if fault else _fault_now(workspace, entries, recorded, approvers),
    )


def approved_model(entries: Sequence[Recorded], recorded: Recorded) -> ResolvedModel | None:
    """The version that an approval's signed statement names; None where the ledger has none of that name."""
    named = str(statement_of(recorded.entry.facts).get("model", ""))
    made = next((v for v in version_entries(entries) if title_of(v) == named), None)
    return from_version(made, named) if made else None


def title_of(version: Recorded) -> str:
    """`r1kit-staging/2`."""
    return f"{version.entry.facts['name']}/{version.entry.facts['version']}"


def list_difference(workspace: Workspace, entries: Sequence[Recorded], approvers: Path | None) -> str | None:
    """How the list of approvers differs from the one that the latest approval was given under; None if it does not."""
    given = approvals(entries)
    path = approvers or approvers_file(workspace)
    if not given:
        return None
    last = given[-1]
    if not path.is_file():
        return f"the list of approvers {path} is gone, under which ledger entry {last.sequence} was approved"
    found = digest_bytes(path.read_bytes())
    recorded = str(last.entry.facts.get("approvers_digest", ""))
    if found == recorded:
        return None
    return (
        f"the list of approvers {path} was altered since ledger entry {last.sequence}: {found[:19]}…, not "
        f"{recorded[:19]}…; if that was meant, the next approval notes it"
    )


def _fault_then(
    workspace: Workspace, entries: Sequence[Recorded], recorded: Recorded, approvers: Path | None
) -> str | None:
    """Why an approval did not hold when it was given; None if it did."""
    facts, model = recorded.entry.facts, approved_model(entries, recorded)
    subject = recorded.entry.input("model")
    if model is None:
        return f"the signed statement is on {statement_of(facts).get('model')!r}, which the ledger does not know"
    if subject is None or subject.digest != model.artifact.digest:
        beside = f"{subject.digest[:19]}…" if subject else "no model"
        return f"it stands beside {beside}, not beside the bytes of {_named(model)}"
    try:
        signers = _signers_then(workspace, facts, approvers)
        before = [r for r in of_kind(entries, *_SPEAKING) if r.sequence <= recorded.sequence]
        checked = _checked(before, recorded, model, signers)
        key = sshsig.key_of(facts["signature"])
    except (ValueError, KeyError, TypeError) as error:
        return str(error)
    if sshsig.fingerprint(key) != facts["key"]:
        other = f"it says that the key is {facts['key']}, but {sshsig.fingerprint(key)} signed"
        return f"{checked}; {other}" if checked else other
    return checked


def _fault_now(
    workspace: Workspace, entries: Sequence[Recorded], recorded: Recorded, approvers: Path | None
) -> str | None:
    """Why an approval that held when it was given would not count today; None if it would."""
    model = approved_model(entries, recorded)
    assert model is not None, "what held names a model"
    try:
        signers = sshsig.read_allowed_signers(approvers or approvers_file(workspace))
    except ValueError as error:
        return str(error)
    return _checked(entries, recorded, model, signers)


def _checked(
    entries: Sequence[Recorded], recorded: Recorded, model: ResolvedModel, signers: Sequence[AllowedSigner]
) -> str | None:
    family = model.name.removesuffix(f"-{model.environment}")
    found = approvals_of(entries, model, signers, family)
    return next((a.fault for a in found if a.sequence == recorded.sequence), "it is not on that model")


def _signers_then(workspace: Workspace, facts: Mapping[str, Any], approvers: Path | None) -> list[AllowedSigner]:
    """The approvers as they were listed at an approval: the ledger keeps the list itself.

    Raises ValueError where the list that is kept is another, or none is.
    """
    kept, digest = facts.get("approvers"), facts.get("approvers_digest")
    if kept is None:
        path = approvers or approvers_file(workspace)
        kept = path.read_text() if path.is_file() else ""
    if digest_bytes(str(kept).encode()) != digest:
        raise ValueError(f"the list of approvers of that time, {str(digest)[:19]}…, is not kept")
    return sshsig.parse_allowed_signers(str(kept), "the list of approvers of that time")


def statement_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What an approver signed; empty where that cannot be read."""
    try:
        found = json.loads(facts["statement"])
    except (KeyError, ValueError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _named(model: ResolvedModel) -> str:
    return f"{model.name}/{model.version}"
