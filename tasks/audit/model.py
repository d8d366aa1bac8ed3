"""The audit of a model: what made it, from which data, validated how, approved by whom, and is it all still so.

Answered offline: from the ledger, the files on this machine and MLflow's own registry. What is not asked is not
looked at: without `altered` nothing is hashed and MLflow is not opened.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from tasks.approvals import submitters
from tasks.audit.data import Look, data_record, document, looking_once, rows_of
from tasks.audit.people import approval_record, approvals, approved_model, list_difference
from tasks.audit.rebuild import rebuildable
from tasks.audit.records import (
    QUESTIONS,
    ApprovalRecord,
    AuditReport,
    PlaceRecord,
    Question,
    StepRecord,
)
from tasks.audit.registry import reconcile
from tasks.evidence import extract_scores, is_exact, training_data
from tasks.ledger import Recorded, open_ledger
from tasks.lineage import (
    ENVIRONMENTS,
    ResolvedModel,
    ancestry,
    evaluation_of,
    family_of,
    history,
    of_kind,
    origin,
    registered,
    resolve_model,
    step_title,
)
from tasks.signing import signature_fault
from tasks.store import fetch
from tasks.workspace import Workspace


def audit(
    workspace: Workspace,
    reference: str,
    *,
    name: str = "r1kit",
    approvers: Path | None = None,
    asked: Collection[Question] = QUESTIONS,
) -> AuditReport:
    """Look into a model. Raises ValueError where there is no such model or the ledger cannot be read."""
    ledger, name = open_ledger(workspace), family_of(reference, name)
    problems, repaired = list(ledger.verify()), []
    if "altered" in asked:
        repaired, differences = reconcile(workspace, name, ledger.entries(), whole=not problems)
        problems += differences
    entries = ledger.entries()
    model = resolve_model(reference, workspace, name)
    model = registered(entries, name, model) or model
    behind = ancestry(entries, model.artifact, model.run)
    wanted = {"trained", "validated"} & set(asked)
    look = looking_once(workspace)
    data = tuple(data_record(workspace, entries, behind, a) for a in training_data(behind)) if wanted else ()
    steps = tuple(_step_record(workspace, entries, s, look if "altered" in asked else None) for s in behind.steps)
    signature = _signature(workspace, model) if "altered" in asked else "not checked"
    given = tuple(_approvals(workspace, entries, model, approvers)) if "approved" in asked else ()
    can = tuple(rebuildable(workspace, entries, behind, look)) if "rebuildable" in asked else ()
    problems += [f"nothing says where {a.kind} {a.digest[:19]}… came from" for a in behind.missing]
    if "validated" in asked:
        problems += [f"{record.kind}: {record.verdict_fault}" for record in data if record.verdict_fault]
    if "approved" in asked:
        problems += _approval_problems(workspace, entries, given, approvers)
    if "rebuildable" in asked:
        problems += [f"{step.title} cannot be rebuilt: {lost}" for step in can for lost in step.missing]
    if "altered" in asked:
        problems += _alterations(look, entries, model, steps, signature)
    return AuditReport(
        reference=reference,
        asked=tuple(question for question in QUESTIONS if question in asked),
        model=model.model,
        name=model.name,
        version=model.version,
        digest=model.artifact.digest,
        uri=model.artifact.uri,
        size_bytes=model.artifact.size_bytes,
        run=model.run,
        submitters=tuple(sorted(submitters(entries, model))),
        holds=holds(entries, name, model.artifact.digest),
        signature=signature,
        evidence_digest=model.evidence.digest if model.evidence else "",
        evaluation=_evaluation(workspace, entries, model),
        data=data,
        steps=steps,
        approvals=given,
        places=_places(entries, model),
        rebuildable=can,
        ledger_entries=len(entries),
        ledger_head=ledger.head().digest,
        repaired=tuple(repaired),
        problems=tuple(dict.fromkeys(problems)),
    )


def holds(entries: Sequence[Recorded], name: str, digest: str) -> tuple[str, ...]:
    """Environments whose current model has these bytes."""
    held = []
    for environment in ENVIRONMENTS[1:]:
        stack = history(entries, name, environment)
        current = stack[-1].entry.output("model") if stack else None
        if current is not None and current.digest == digest:
            held.append(environment)
    return tuple(held)


def _step_record(workspace: Workspace, entries: Sequence[Recorded], step: Recorded, look: Look | None) -> StepRecord:
    ran = origin(entries, step)
    entry, facts = step.entry, ran.entry.facts
    outputs = [edge.artifact for edge in entry.outputs]
    return StepRecord(
        title=step_title(step),
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
        threads=facts.get("threads", 0),
        processes=facts.get("runtime", {}).get("processes", 1),
        mlflow_run_id=facts.get("mlflow_run_id", ""),
        prefect_run_id=facts.get("prefect_run_id", ""),
        inputs={edge.role: edge.artifact.digest for edge in entry.inputs},
        outputs={edge.role: edge.artifact.digest for edge in entry.outputs},
        rows=tuple(rows_of(workspace, entries, step)),
        exact=is_exact(facts.get("metrics", {})),
        said=tuple(facts.get("said", ())),
        faults=tuple(reason for a in outputs if (reason := look(a))) if look else (),
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
    workspace: Workspace, entries: Sequence[Recorded], model: ResolvedModel, approvers: Path | None
) -> Iterator[ApprovalRecord]:
    """Approvals of these bytes, and those whose signed statement is on them though they stand beside others."""
    for recorded in approvals(entries):
        subject, meant = recorded.entry.input("model"), approved_model(entries, recorded)
        digests = {subject.digest if subject else "", meant.artifact.digest if meant else ""}
        if model.artifact.digest in digests:
            yield approval_record(workspace, entries, recorded, approvers)


def _approval_problems(
    workspace: Workspace, entries: Sequence[Recorded], given: Sequence[ApprovalRecord], approvers: Path | None
) -> Iterator[str]:
    for approval in given:
        if approval.fault:
            yield (
                f"the approval of {approval.approver} for {approval.environment} (ledger entry {approval.sequence}) "
                f"does not hold: {approval.fault}"
            )
    if given and (listed := list_difference(workspace, entries, approvers)):
        yield listed


def _evaluation(workspace: Workspace, entries: Sequence[Recorded], model: ResolvedModel) -> dict[str, dict[str, float]]:
    examined = evaluation_of(entries, model.artifact.digest)
    content = document(workspace, examined[1]) if examined else {}
    if not content:
        return {}
    scores = extract_scores(content).accuracy
    return {name: {"n": len(s), "score": sum(s.values()) / len(s)} for name, s in scores.items()}


def _places(entries: Sequence[Recorded], model: ResolvedModel) -> tuple[PlaceRecord, ...]:
    """Registered, promoted, rolled back: every event that names these bytes."""
    found = []
    for recorded in of_kind(entries, "registration", "promotion", "rollback"):
        entry, facts = recorded.entry, recorded.entry.facts
        if entry.status != "done":
            continue
        came, left = entry.output("model"), entry.input("model")
        title = f"{facts['name']}/{facts['version']}"
        what = ""
        if came is not None and came.digest == model.artifact.digest:
            verb = {"registration": "registered as", "promotion": "promoted to", "rollback": "came back as"}[entry.kind]
            what = f"{verb} {title}"
        elif entry.kind == "rollback" and left is not None and left.digest == model.artifact.digest:
            what = f"rolled back from {facts['environment']} in favour of {title}"
        if what:
            who = str(facts.get("submitter") or facts.get("actor", ""))
            gates = tuple(map(str, facts.get("gates", ())))
            found.append(PlaceRecord(what=what, time=recorded.time, who=who, sequence=recorded.sequence, gates=gates))
    return tuple(found)


def _alterations(
    look: Look,
    entries: Sequence[Recorded],
    model: ResolvedModel,
    steps: Sequence[StepRecord],
    signature: str,
) -> Iterator[str]:
    for part in filter(None, (model.artifact, model.signature, model.evidence)):
        if reason := look(part):
            yield f"the {part.kind}: {reason}"
    if signature not in ("verified", "none"):
        yield f"the signature does not hold: {signature}"
    examined = evaluation_of(entries, model.artifact.digest)
    if examined and (reason := look(examined[1])):
        yield f"the evaluation: {reason}"
    for step in steps:
        yield from (f"{step.title}: {reason}" for reason in step.faults)
