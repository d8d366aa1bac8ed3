"""Registering: a candidate version of a model, copied, signed, with its evidence. Promotes nothing."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.approvals import submitter as current_submitter
from tasks.artifacts import Artifact, canonical_json, digest_bytes, digest_json
from tasks.evidence import build_evidence
from tasks.ledger import Edge, Entry, Head, Ledger, Recorded, open_ledger
from tasks.lineage import ResolvedModel, ancestry, evaluation_of, registrations, resolve_model, validation_of
from tasks.reach import alive
from tasks.registry import anchor, create_version, heal_versions
from tasks.signing import key_digest, sign_model, signature_fault
from tasks.store import fetch, publish, store_fault
from tasks.tracking import TrackingRun, client_of, open_run
from tasks.vault import Copies
from tasks.workspace import SETTINGS_FILE, Workspace

SIGNATURE_FILE = "model.sig"


@dataclass(frozen=True)
class Registered:
    """The outcome of registering."""

    name: str
    version: str
    artifact: Artifact
    evidence: Artifact
    new: bool
    """False where the same model with the same evidence was registered before."""


def register(
    workspace: Workspace, *, name: str = "r1kit", run: str = "", reference: str = "r1", submitter: str = ""
) -> Registered:
    """Register the model that `reference` means as a candidate, with all that the ledger knows of it.

    The same model with the same evidence is registered once; asking again only notes it in the ledger, unless
    the registered copy was lost or altered.
    Raises ValueError where there is no such model, or its lineage has a gap.
    """
    ledger = open_ledger(workspace)
    entries = ledger.entries()
    model = resolve_model(reference, workspace, name)
    behind = ancestry(entries, model.artifact, model.run)
    evidence = build_evidence(entries, model.model, model.artifact, behind)
    who = submitter or current_submitter()
    known = _registered_before(workspace, entries, name, model.artifact.digest, digest_json(evidence))
    if known is not None:
        entry = known.entry.model_copy(
            update={
                "status": "reused",
                "run": run or model.run,
                "facts": {**known.entry.facts, "submitter": who},
            }
        )
        return _outcome(ledger.append(entry), new=False)
    return _outcome(_register(workspace, ledger, name, run or model.run, model, evidence, who), new=True)


def _copy_signed(workspace: Workspace, run: TrackingRun, model: Artifact, evidence_dir: Path) -> Copies:
    """Copy a model and its evidence into a run's own prefix, sign it there, and check the signature."""
    copied = publish(fetch(model, workspace), "model", run)
    model_dir = fetch(copied, workspace)
    with tempfile.TemporaryDirectory() as scratch:
        signature = Path(scratch) / SIGNATURE_FILE
        sign_model(model_dir, signature, workspace)
        fault = signature_fault(model_dir, signature, workspace)
        if fault:
            raise ValueError(f"the signature of the model does not hold: {fault}")
        return Copies(copied, publish(signature, "signature", run), publish(evidence_dir, "evidence", run))


def _register(
    workspace: Workspace,
    ledger: Ledger,
    name: str,
    run: str,
    model: ResolvedModel,
    evidence: dict[str, Any],
    who: str,
) -> Recorded:
    entries = ledger.entries()
    examined = evaluation_of(entries, model.artifact.digest)
    tags = {
        "r1kit.model": model.model,
        "r1kit.model_digest": model.artifact.digest,
        "r1kit.evidence_digest": digest_json(evidence),
        "r1kit.submitter": who,
        "r1kit.run": run,
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_run(workspace, "register", experiment=f"{name}-candidate", tags=tags) as tracked,
    ):
        bundle = Path(scratch) / "evidence"
        _write_bundle(workspace, entries, bundle, evidence, examined[1] if examined else None, run)
        copies = _copy_signed(workspace, tracked, model.artifact, bundle)
        heal_versions(workspace, entries, name, "candidate")
        version = create_version(
            workspace, f"{name}-candidate", f"runs:/{tracked.run_id}/model", tracked.run_id, tags, ledger.head()
        )
    inputs = {"model": model.artifact, **({"evaluation": examined[1]} if examined else {})}
    entry = Entry(
        kind="registration",
        job="register",
        status="done",
        run=run,
        inputs=tuple(Edge(role=role, artifact=artifact) for role, artifact in inputs.items()),
        outputs=copies.edges(),
        facts={
            "name": f"{name}-candidate",
            "version": version,
            "environment": "candidate",
            "model": model.model,
            "submitter": who,
            "evidence_document_digest": digest_json(evidence),
            "signing_key_digest": key_digest(workspace),
            "mlflow_run_id": tracked.run_id,
        },
    )
    recorded = ledger.append(entry)
    anchor(client_of(workspace), f"{name}-candidate", Head(recorded.sequence, recorded.digest))
    return recorded


def _write_bundle(
    workspace: Workspace,
    entries: Sequence[Recorded],
    bundle: Path,
    evidence: dict[str, Any],
    examined: Artifact | None,
    run: str,
) -> None:
    """evidence.json with copies of the evaluation and the validations it names, and of the run's settings."""
    bundle.mkdir()
    (bundle / "evidence.json").write_bytes(canonical_json(evidence))
    if examined:
        (bundle / "evaluation.json").write_bytes(_file(fetch(examined, workspace), "evaluation.json").read_bytes())
    verdicts = (validation_of(entries, data["digest"]) for data in evidence["data"])
    for artifact in {v[1].digest: v[1] for v in verdicts if v}.values():
        content = _file(fetch(artifact, workspace), "validation.json").read_bytes()
        (bundle / f"validation-{digest_bytes(content)[7:19]}.json").write_bytes(content)
    settings = workspace.runs_dir / run / SETTINGS_FILE
    if run and settings.is_file():
        (bundle / SETTINGS_FILE).write_bytes(settings.read_bytes())


def _file(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _registered_before(
    workspace: Workspace, entries: Sequence[Recorded], name: str, model_digest: str, document_digest: str
) -> Recorded | None:
    kept = alive(entries)
    for recorded in reversed(registrations(entries, name)):
        model = recorded.entry.output("model")
        same_evidence = recorded.entry.facts["evidence_document_digest"] == document_digest
        copies = [edge.artifact for edge in recorded.entry.outputs]
        whole = all(a.uri in kept[a.digest] and store_fault(a, workspace) is None for a in copies)
        if model is not None and model.digest == model_digest and same_evidence and whole:
            return recorded
    return None


def _outcome(recorded: Recorded, *, new: bool) -> Registered:
    model, evidence = recorded.entry.output("model"), recorded.entry.output("evidence")
    assert model is not None and evidence is not None, "a registration has both"
    facts = recorded.entry.facts
    return Registered(facts["name"], facts["version"], model, evidence, new)


def read_evidence(evidence: Artifact, workspace: Workspace) -> dict[str, Any]:
    """The evidence document of a registered model."""
    return json.loads((fetch(evidence, workspace) / "evidence.json").read_text())
