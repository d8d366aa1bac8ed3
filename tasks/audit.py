"""The audit of a model: what made it, from which data, validated how, approved by whom, and is it all still so.

Answered offline: from the ledger, the files on this machine and MLflow's own registry. Everything that can be
checked again is: digests, the chain of entries, the model's signature, the approvers' signatures, aliases.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from r1kit.schema import Section
from tasks import sshsig
from tasks.approvals import approvals_of, approvers_file, submitters
from tasks.artifacts import Artifact, fault, verify
from tasks.evidence import extract_scores, is_exact, training_data
from tasks.ledger import Entry, Ledger, LedgerBroken, Recorded, open_ledger
from tasks.lineage import (
    ENVIRONMENTS,
    Ancestry,
    ResolvedModel,
    ancestry,
    evaluation_of,
    family_of,
    history,
    made,
    model_name,
    origin,
    registered,
    resolve_model,
    validation_of,
    versions,
)
from tasks.promotion import Busy, environment_lock, project_aliases, recover, unfinished
from tasks.signing import signature_fault
from tasks.store import fetch
from tasks.workspace import REPOSITORY, Workspace

DVC_CACHE = REPOSITORY / ".dvc" / "cache"


class DataRecord(Section):
    """A data set that the model's lineage was trained on."""

    kind: str
    digest: str
    uri: str
    fault: str | None
    """Why its bytes are no longer those trained on; None if they are."""
    sources: tuple[dict[str, Any], ...]
    """Where its rows came from: name, origin, checksum, licence, counts."""
    validated: str | None
    """When these bytes were let through; None if never."""
    verdict: dict[str, Any]
    """What the validation says of it."""


class StepRecord(Section):
    """A stage in the lineage."""

    title: str
    """`prefer → r1`."""
    stage: str
    instance: str
    run: str
    """Recipe run."""
    time: str
    """When it ran, even where a later run reused it."""
    sequence: int
    """Ledger entry."""
    key: str
    code_digest: str
    config_digest: str
    config: dict[str, Any]
    seed: int
    seconds: float
    environment: dict[str, str]
    mlflow_run_id: str
    prefect_run_id: str
    inputs: dict[str, str]
    """Role → digest."""
    outputs: dict[str, str]
    exact: bool
    """Whether it claims the bits of an uninterrupted run; not where it was resumed on another machine, say."""
    said: tuple[str, ...]
    """What it said for people while it ran."""
    faults: tuple[str, ...]
    """Outputs whose bytes are missing or altered."""


class ApprovalRecord(Section):
    """An approval, its signature verified now."""

    approver: str
    environment: str
    time: str
    key: str
    fault: str | None


class PlaceRecord(Section):
    """An event in the model's life after its making."""

    what: str
    time: str
    who: str
    sequence: int


class AuditReport(Section):
    """All that is known of a model."""

    reference: str
    model: str
    name: str
    version: str
    digest: str
    uri: str
    size_bytes: int
    run: str
    submitters: tuple[str, ...]
    holds: tuple[str, ...]
    """Environments whose current model has these bytes."""
    signature: str
    """`verified`, `none`, or what is wrong with it."""
    evaluation: dict[str, dict[str, float]]
    """Benchmark → n, mean score."""
    data: tuple[DataRecord, ...]
    steps: tuple[StepRecord, ...]
    approvals: tuple[ApprovalRecord, ...]
    places: tuple[PlaceRecord, ...]
    ledger_entries: int
    ledger_head: str
    repaired: tuple[str, ...]
    """What the audit put right: half-way promotions, aliases."""
    problems: tuple[str, ...]
    """All that is not as it should be; empty for a sound model."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def audit(workspace: Workspace, reference: str, *, name: str = "r1kit", approvers: Path | None = None) -> AuditReport:
    """Look into a model. Raises ValueError where there is no such model or the ledger cannot be read."""
    ledger, name = open_ledger(workspace), family_of(reference, name)
    problems = ledger.verify()
    entries = ledger.entries()
    repaired, registry_problems = _reconcile(workspace, ledger, name)
    entries = ledger.entries()
    model = resolve_model(reference, workspace, name)
    model = registered(entries, name, model) or model
    behind = ancestry(entries, model.artifact, model.run)
    data = tuple(_data_record(workspace, entries, behind, artifact) for artifact in training_data(behind))
    steps = tuple(_step_record(entries, step) for step in behind.steps)
    signature = _signature(workspace, model)
    approvals, approval_problem = _approvals(workspace, entries, model, name, approvers)
    problems += registry_problems + approval_problem + _problems(model, behind, data, steps, signature)
    return AuditReport(
        reference=reference,
        model=model.model,
        name=model.name,
        version=model.version,
        digest=model.artifact.digest,
        uri=model.artifact.uri,
        size_bytes=model.artifact.size_bytes,
        run=model.run,
        submitters=tuple(sorted(submitters(entries, model))),
        holds=_holds(entries, name, model),
        signature=signature,
        evaluation=_evaluation(workspace, entries, model),
        data=data,
        steps=steps,
        approvals=approvals,
        places=_places(entries, model),
        ledger_entries=len(entries),
        ledger_head=ledger.head().digest,
        repaired=tuple(repaired),
        problems=tuple(dict.fromkeys(problems)),
    )


def touched_by(workspace: Workspace, digest: str) -> list[str]:
    """Every model, live or past, whose lineage holds an artifact with this digest or its beginning.

    Raises ValueError where the ledger knows no such artifact.
    """
    wanted = "sha256:" + digest.removeprefix("sha256:")
    entries = open_ledger(workspace).entries()
    reached = {
        e.artifact.digest
        for r in entries
        for e in (*r.entry.inputs, *r.entry.outputs)
        if e.artifact.digest.startswith(wanted)
    }
    if not reached:
        raise ValueError(f"the ledger knows no artifact whose digest begins with {wanted}")
    found: dict[str, None] = {}
    for recorded in entries:
        if made(recorded) and any(edge.artifact.digest in reached for edge in recorded.entry.inputs):
            reached |= {edge.artifact.digest for edge in recorded.entry.outputs}
    for recorded in entries:
        model = recorded.entry.output("model")
        if model is not None and model.digest in reached:
            found[_model_title(recorded.entry)] = None
    return list(found)


def _model_title(entry: Entry) -> str:
    """`r1kit-staging/2` for a version, `r1 of run 7` for a stage's model."""
    if "version" in entry.facts:
        return f"{entry.facts['name']}/{entry.facts['version']}"
    return f"{model_name(entry)} of run {entry.run}"


def _reconcile(workspace: Workspace, ledger: Ledger, name: str) -> tuple[list[str], list[str]]:
    """Finish what was cut off, put aliases right, and compare the registry's anchors with the ledger."""
    if not versions(ledger.entries(), name) and not unfinished(ledger.entries()):
        return [], []
    repaired: list[str] = []
    with contextlib.suppress(Busy, LedgerBroken), environment_lock(workspace):
        repaired = recover(workspace, name) + project_aliases(workspace, name)
    return repaired, _anchor_problems(workspace, ledger.entries(), name)


def _anchor_problems(workspace: Workspace, entries: Sequence[Recorded], name: str) -> list[str]:
    """Versions that know of ledger entries which are no longer there: the ledger was cut off or rewritten."""
    from tasks.tracking import client_of

    known = {str(r.sequence): r.digest for r in entries}
    named = {(r.entry.facts["name"], r.entry.facts["version"]) for r in versions(entries, name)}
    problems = []
    for environment in ENVIRONMENTS:
        for version in client_of(workspace).search_model_versions(f"name = '{name}-{environment}'"):
            title, tags = f"{version.name}/{version.version}", version.tags
            if known.get(tags.get("r1kit.ledger_sequence", "")) != tags.get("r1kit.ledger_digest"):
                problems.append(
                    f"{title} was made after ledger entry {tags.get('r1kit.ledger_sequence')}, which is gone"
                )
            elif (version.name, str(version.version)) not in named:
                problems.append(f"{title} is in the registry but not in the ledger")
    return problems


def _data_record(workspace: Workspace, entries: Sequence[Recorded], behind: Ancestry, artifact: Artifact) -> DataRecord:
    verdict = validation_of(entries, artifact.digest)
    manifest = next(
        (
            m
            for s in behind.steps
            for m in [s.entry.output("manifest")]
            if m and s.entry.output(artifact.kind) == artifact
        ),
        None,
    )
    found, wrong = whereabouts(artifact)
    return DataRecord(
        kind=artifact.kind,
        digest=artifact.digest,
        uri=found.uri,
        fault=wrong,
        sources=tuple(data_sources(_document(workspace, manifest), artifact.kind)),
        validated=verdict[0].time if verdict else None,
        verdict=data_verdict(_document(workspace, verdict[1]) if verdict else {}, artifact.kind),
    )


def whereabouts(artifact: Artifact, cache: Path = DVC_CACHE) -> tuple[Artifact, str | None]:
    """An artifact where its bytes are still found, or as recorded with what is wrong with it.

    Newer data sets replace older ones in their place; DVC's cache keeps the older bytes under their own hash.
    """
    wrong = fault(artifact) if artifact.path else None
    if wrong and cache.is_dir():
        for file in cache.rglob("*"):
            if file.is_file() and file.stat().st_size == artifact.size_bytes:
                kept = artifact.model_copy(update={"uri": file.resolve().as_uri()})
                if verify(kept):
                    return kept, None
    return artifact, wrong


def data_sources(manifest: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The sources of one kind of rows, from the data stage's manifest.json."""
    return [dict(source) for source in manifest.get("sources", []) if source.get("kind") == kind]


def data_verdict(validation: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What validation.json says of one kind of rows."""
    return next((dict(file) for file in validation.get("files", []) if file.get("kind") == kind), {})


def _document(workspace: Workspace, artifact: Artifact | None) -> dict[str, Any]:
    """The JSON of a small artifact; empty where it is gone or altered, which its step's faults say."""
    if artifact is None:
        return {}
    try:
        found = json.loads(fetch(whereabouts(artifact)[0], workspace).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _step_record(entries: Sequence[Recorded], step: Recorded) -> StepRecord:
    ran = origin(entries, step)
    entry, facts = step.entry, ran.entry.facts
    name = model_name(entry) if entry.output("model") else ""
    title = f"{entry.job}[{entry.instance}]" if entry.instance else entry.job
    outputs = [edge.artifact for edge in entry.outputs]
    return StepRecord(
        title=f"{title} → {name}" if name and name != title else title,
        stage=entry.job,
        instance=entry.instance,
        run=ran.entry.run,
        time=ran.time,
        sequence=step.sequence,
        key=facts.get("key", ""),
        code_digest=facts.get("code_digest", ""),
        config_digest=facts.get("config_digest", ""),
        config=facts.get("config", {}),
        seed=facts.get("seed", 0),
        seconds=facts.get("seconds", 0.0),
        environment=facts.get("environment", {}),
        mlflow_run_id=facts.get("mlflow_run_id", ""),
        prefect_run_id=facts.get("prefect_run_id", ""),
        inputs={edge.role: edge.artifact.digest for edge in entry.inputs},
        outputs={edge.role: edge.artifact.digest for edge in entry.outputs},
        exact=is_exact(facts.get("metrics", {})),
        said=tuple(facts.get("said", ())),
        faults=tuple(reason for artifact in outputs if (reason := whereabouts(artifact)[1])),
    )


def _signature(workspace: Workspace, model: ResolvedModel) -> str:
    if model.signature is None:
        return "none"
    try:
        place, signature = fetch(model.artifact, workspace), fetch(model.signature, workspace)
    except ValueError as error:
        return str(error)
    return signature_fault(place, signature, workspace) or "verified"


def _approvals(
    workspace: Workspace, entries: Sequence[Recorded], model: ResolvedModel, name: str, approvers: Path | None
) -> tuple[tuple[ApprovalRecord, ...], list[str]]:
    if not any(r.entry.kind == "approval" for r in entries):
        return (), []
    try:
        signers, problem = sshsig.read_allowed_signers(approvers or approvers_file(workspace)), []
    except ValueError as error:
        signers, problem = [], [f"approvals cannot be verified: {error}"]
    found = tuple(
        ApprovalRecord(approver=a.approver, environment=a.environment, time=a.time, key=a.key, fault=a.fault)
        for a in approvals_of(entries, model, signers, name)
    )
    return found, problem if found else []


def _evaluation(workspace: Workspace, entries: Sequence[Recorded], model: ResolvedModel) -> dict[str, dict[str, float]]:
    examined = evaluation_of(entries, model.artifact.digest)
    document = _document(workspace, examined[1]) if examined else {}
    if not document:
        return {}
    scores = extract_scores(document).accuracy
    return {name: {"n": len(s), "score": sum(s.values()) / len(s)} for name, s in scores.items()}


def _holds(entries: Sequence[Recorded], name: str, model: ResolvedModel) -> tuple[str, ...]:
    held = []
    for environment in ENVIRONMENTS[1:]:
        stack = history(entries, name, environment)
        current = stack[-1].entry.output("model") if stack else None
        if current is not None and current.digest == model.artifact.digest:
            held.append(environment)
    return tuple(held)


def _places(entries: Sequence[Recorded], model: ResolvedModel) -> tuple[PlaceRecord, ...]:
    """Registered, promoted, rolled back: every event that names these bytes."""
    found = []
    for recorded in entries:
        entry, facts = recorded.entry, recorded.entry.facts
        if entry.kind not in ("registration", "promotion", "rollback") or entry.status != "done":
            continue
        came, left = entry.output("model"), entry.input("model")
        title = f"{facts['name']}/{facts['version']}"
        who = str(facts.get("submitter") or facts.get("actor", ""))
        if came is not None and came.digest == model.artifact.digest:
            verb = {"registration": "registered as", "promotion": "promoted to", "rollback": "came back as"}[entry.kind]
            found.append(PlaceRecord(what=f"{verb} {title}", time=recorded.time, who=who, sequence=recorded.sequence))
        elif entry.kind == "rollback" and left is not None and left.digest == model.artifact.digest:
            what = f"rolled back from {facts['environment']} in favour of {title}"
            found.append(PlaceRecord(what=what, time=recorded.time, who=who, sequence=recorded.sequence))
    return tuple(found)


def _problems(
    model: ResolvedModel,
    behind: Ancestry,
    data: Sequence[DataRecord],
    steps: Sequence[StepRecord],
    signature: str,
) -> list[str]:
    problems = [f"the model: {reason}" for reason in [fault(model.artifact) if model.artifact.path else None] if reason]
    if signature not in ("verified", "none"):
        problems.append(f"the signature does not hold: {signature}")
    problems += [f"nothing says where {a.kind} {a.digest[:19]}… came from" for a in behind.missing]
    problems += [f"{record.kind}: never validated as these bytes" for record in data if record.validated is None]
    problems += [f"{step.title}: {reason}" for step in steps for reason in step.faults]
    return problems
