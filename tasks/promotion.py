"""Promoting and rolling back: an environment's model is a copy of its own, and the ledger says which.

A promotion is: an `intended` entry, a copy under the environment's prefix with its own registered version, a
`done` entry. The `done` entry is the promotion; MLflow's aliases are set after it and follow the ledger. A
promotion that was killed in between is finished or undone by the next one who holds the lock (`tasks.recovery`).
"""

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.approvals import approvers_file
from tasks.gates import Gate, Question, check_gates
from tasks.ledger import Edge, Entry, Ledger, Recorded, open_ledger
from tasks.lineage import (
    Environment,
    ResolvedModel,
    family_of,
    from_version,
    history,
    registered,
    resolve_model,
)
from tasks.reach import unfinished
from tasks.recovery import (
    Busy,
    append_after,
    changed_hands,
    environment_lock,
    finish,
    here,
    recover,
    title,
    undo,
)
from tasks.registry import create_version, project_aliases
from tasks.signing import signature_fault
from tasks.store import fetch, publish, store_fault
from tasks.tracking import answering, open_run
from tasks.vault import Copies, copy_model, keep_lineage, place_of
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from r1kit.promotion import PromotionConfig

PROMOTED: tuple[Environment, ...] = ("staging", "production")

__all__ = [
    "PROMOTED", "Busy", "Promotion", "PromotionRefused", "check", "environment_lock", "project_aliases", "promote",
    "recover", "rollback", "unfinished",
]  # fmt: skip


class PromotionRefused(ValueError):
    """A gate did not let the model through."""

    def __init__(self, model: ResolvedModel, to: str, gates: Sequence[Gate]) -> None:
        self.gates = list(gates)
        closed = [str(gate) for gate in gates if not gate.passed]
        super().__init__(f"{model.title} may not enter {to}:\n" + "\n".join(f"  {line}" for line in closed))


@dataclass(frozen=True)
class Promotion:
    """What a promotion or a rollback led to."""

    environment: Environment
    name: str
    version: str
    model: str
    previous: str
    """Version that held the environment before; empty if none did."""
    gates: tuple[Gate, ...] = ()


def promote(
    workspace: Workspace,
    reference: str,
    to: Environment,
    *,
    settings: "PromotionConfig",
    name: str = "r1kit",
    approvers: Path | None = None,
    actor: str = "",
) -> Promotion:
    """Let a model into an environment if every gate lets it through; one that was cut off is finished.

    Raises PromotionRefused naming each gate that does not, and ValueError where another promotion is under
    way or was quicker.
    """
    ledger, name = open_ledger(workspace), family_of(reference, name)
    check_environment(to)
    seen = history(ledger.entries(), name, to)
    with answering(workspace), environment_lock(workspace):
        cut_off = {intent.sequence for intent in unfinished(ledger.entries())}
        recover(workspace, name)
        if changed_hands(ledger.entries(), name, to, seen):
            question = _question(workspace, ledger, reference, to, settings, name, approvers)
            finished = history(ledger.entries(), name, to)[-1]
            model = finished.entry.output("model")
            own = model is not None and model.digest == question.model.artifact.digest
            if own and finished.entry.facts.get("intent") in cut_off:
                return _promotion(finished, ())
            raise ValueError(f"{to} changed hands meanwhile; run again to be compared with its new holder")
        question = _question(workspace, ledger, reference, to, settings, name, approvers)
        if question.holder is not None and question.holder.artifact.digest == question.model.artifact.digest:
            raise ValueError(f"{to} already holds {question.model.title}: {question.holder.title}")
        gates = check_gates(question)
        if not all(gate.passed for gate in gates):
            raise PromotionRefused(question.model, to, gates)
        done = _carry_out(question, gates, actor or getpass.getuser())
        project_aliases(workspace, name)
    return _promotion(done, tuple(gates))


def _promotion(done: Recorded, gates: tuple[Gate, ...]) -> Promotion:
    facts = done.entry.facts
    return Promotion(facts["environment"], facts["name"], facts["version"], facts["model"], facts["previous"], gates)


def check_environment(to: str) -> None:
    """Raise ValueError where there is no such environment to promote to."""
    if to not in PROMOTED:
        raise ValueError(f"{to!r} is not an environment to promote to; there are {' and '.join(PROMOTED)}")


def check(
    workspace: Workspace,
    reference: str,
    to: Environment,
    *,
    settings: "PromotionConfig",
    name: str = "r1kit",
    approvers: Path | None = None,
) -> list[Gate]:
    """Every gate's verdict, without promoting."""
    check_environment(to)
    with answering(workspace):
        return check_gates(_question(workspace, open_ledger(workspace), reference, to, settings, name, approvers))


def rollback(
    workspace: Workspace, environment: Environment, *, name: str = "r1kit", actor: str = "", reason: str = ""
) -> Promotion:
    """Give an environment back to the model that held it before, and note it in the ledger.

    Raises ValueError where there is none, or where its copy was altered.
    """
    check_environment(environment)
    with answering(workspace), environment_lock(workspace):
        recover(workspace, name)
        facts = _roll_back(workspace, open_ledger(workspace), environment, name, actor or getpass.getuser(), reason)
        project_aliases(workspace, name)
    return Promotion(environment, facts["name"], facts["version"], facts["model"], facts["previous"])


def _roll_back(
    workspace: Workspace, ledger: Ledger, environment: Environment, name: str, actor: str, reason: str
) -> dict[str, Any]:
    """Append the rollback right after a state in which its copy was found whole; its facts come back."""
    while True:
        entries = ledger.entries()
        _refuse_rival(entries, f"{name}-{environment}", environment)
        stack = history(entries, name, environment)
        if len(stack) < 2:
            held = f"only {title(stack[-1])} was ever promoted to it" if stack else "nothing was ever promoted to it"
            raise ValueError(f"{environment} cannot be rolled back: {held}")
        left, back = stack[-1], stack[-2]
        wrong = _copy_fault(workspace, back)
        if wrong:
            raise ValueError(f"{environment} cannot be rolled back to {title(back)}: {wrong}")
        facts = {
            **{key: back.entry.facts[key] for key in ("name", "version", "environment", "model", "mlflow_run_id")},
            "previous": left.entry.facts["version"],
            "actor": actor,
            "reason": reason,
        }
        model = left.entry.output("model")
        assert model is not None, "a promotion has its model"
        entry = Entry(
            kind="rollback",
            job=f"rollback-{environment}",
            status="done",
            run=back.entry.run,
            inputs=(Edge(role="model", artifact=model),),
            outputs=back.entry.outputs,
            facts=facts,
        )
        if append_after(ledger, entry, entries) is not None:
            return facts


def _question(
    workspace: Workspace,
    ledger: Ledger,
    reference: str,
    to: Environment,
    settings: "PromotionConfig",
    name: str,
    approvers: Path | None,
) -> Question:
    entries, name = ledger.entries(), family_of(reference, name)
    model = registered(entries, name, resolve_model(reference, workspace, name))
    if model is None:
        raise ValueError(f"{reference!r} is not registered; finish a run with `r1 run`, which registers its model")
    stack = history(entries, name, to)
    holder = from_version(stack[-1], to) if stack else None
    if to == "production":
        model = _in_staging(entries, name, model) or model
    return Question(
        workspace, ledger, entries, name, model, to, holder, settings, approvers or approvers_file(workspace)
    )


def _in_staging(entries: Sequence[Recorded], name: str, model: ResolvedModel) -> ResolvedModel | None:
    """Staging's copy of these bytes, if staging holds them now; a past holder counts as no candidate."""
    stack = history(entries, name, "staging")
    current = from_version(stack[-1], model.reference) if stack else None
    return current if current is not None and current.artifact.digest == model.artifact.digest else None


def _carry_out(question: Question, gates: Sequence[Gate], actor: str) -> Recorded:
    """Intend, copy, make the version, and be done. What fails on the way is undone at once."""
    model, workspace, ledger = question.model, question.workspace, question.ledger
    assert model.signature is not None and model.evidence is not None, "the gates have seen both"
    facts: dict[str, Any] = {
        "name": f"{question.name}-{question.to}",
        "environment": question.to,
        "model": model.model,
        "source": f"{model.name}/{model.version}",
        "previous": question.holder.version if question.holder else "",
        "actor": actor,
        "gates": [str(gate) for gate in gates],
        "evidence_digest": model.evidence.digest,
        "by": here(workspace),
    }
    begin = Entry(
        kind="promotion",
        job=f"promote-{question.to}",
        status="intended",
        run=model.run,
        inputs=(Edge(role="model", artifact=model.artifact),),
        facts=facts,
    )
    intent = _intend(question, begin)
    try:
        copies, version, run_id = _copy(question, intent)
        return finish(workspace, ledger, intent, copies, version, run_id)
    except Exception:  # whatever it was, the intent is undone before it is raised again
        undo(workspace, ledger, intent)
        raise


def _intend(question: Question, begin: Entry) -> Recorded:
    """Append the intent right after a state in which all is still as the gates saw it."""
    ledger, to = question.ledger, question.to
    seen = history(question.entries, question.name, to)
    deletions = sum(r.entry.kind == "deletion" for r in question.entries)
    while True:
        entries = ledger.entries()
        _refuse_rival(entries, begin.facts["name"], to)
        if changed_hands(entries, question.name, to, seen):
            raise ValueError(f"another promotion to {to} was quicker; run again to be compared with it")
        if sum(r.entry.kind == "deletion" for r in entries) != deletions:
            raise ValueError("`r1 gc` deleted something meanwhile; run again to see whether all is still there")
        intent = append_after(ledger, begin, entries)
        if intent is not None:
            return intent


def _refuse_rival(entries: Sequence[Recorded], full_name: str, environment: str) -> None:
    """Raise `Busy` where a promotion to the environment was begun elsewhere and may still be at work."""
    for rival in unfinished(entries):
        if rival.entry.facts["name"] == full_name:
            where, when = rival.entry.facts.get("by", "another machine"), rival.time[:19]
            raise Busy(f"another promotion to {environment} is under way (from {where} since {when}); try again later")


def _copy(question: Question, intent: Recorded) -> tuple[Copies, str, str]:
    """The physical copy under the environment's prefix, and its version in the registry."""
    model, workspace = question.model, question.workspace
    assert model.signature is not None and model.evidence is not None, "the gates have seen both"
    tags = {
        "r1kit.intent": str(intent.sequence),
        "r1kit.model": model.model,
        "r1kit.model_digest": model.artifact.digest,
        "r1kit.evidence_digest": model.evidence.digest,
        "r1kit.source": f"{model.name}/{model.version}",
    }
    full_name = f"{question.name}-{question.to}"
    keep_lineage(workspace, question.entries, question.name, [model.artifact, model.evidence, model.signature])
    home = place_of(workspace, question.name, intent)
    with open_run(workspace, f"promote-{question.to}", experiment=full_name, tags=tags) as run:
        signature, evidence = fetch(model.signature, workspace), fetch(model.evidence, workspace)
        copies = copy_model(workspace, home, model.artifact, evidence, signature)
        wrong = signature_fault(fetch(copies.model, workspace), fetch(copies.signature, workspace), workspace)
        if wrong:
            raise ValueError(f"the signature of the copy does not hold: {wrong}")
        if workspace.mlflow_uri.startswith("http") and not home.startswith("s3:"):
            publish(fetch(copies.model, workspace), "model", run)  # for MLflow, which will not look outside its runs
        tags |= {f"r1kit.{edge.role}": edge.artifact.model_dump_json() for edge in copies.edges()}
        version = create_version(workspace, full_name, copies.model.uri, run.run_id, tags, question.ledger.head())
    return copies, version, run.run_id


def _copy_fault(workspace: Workspace, recorded: Recorded) -> str | None:
    """Why an environment's copy cannot be used; None if bytes and signature hold."""
    model = from_version(recorded, "")
    assert model.signature is not None, "a promotion has its signature"
    for part in (model.artifact, model.signature):
        wrong = store_fault(part, workspace)
        if wrong:
            return wrong
    return signature_fault(fetch(model.artifact, workspace), fetch(model.signature, workspace), workspace)
