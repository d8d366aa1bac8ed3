"""Promoting and rolling back: an environment's model is a copy of its own, and the ledger says which.

A promotion is: an `intended` entry, a copy under the environment's prefix with its own registered version, a
`done` entry. The `done` entry is the promotion; MLflow's aliases are set after it and follow the ledger. A
promotion that was killed in between is finished or undone by the next one who holds the lock.
"""

import contextlib
import fcntl
import getpass
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.approvals import approvers_file
from tasks.artifacts import Artifact, fault
from tasks.gates import Gate, Question, check_gates
from tasks.ledger import Edge, Entry, Head, Ledger, LedgerMoved, Recorded, open_ledger
from tasks.lineage import (
    Environment,
    ResolvedModel,
    family_of,
    from_version,
    history,
    registered,
    resolve_model,
)
from tasks.register import ANCHOR_TAGS, Copies, anchor, copy_model, create_version, ensure_registered_model
from tasks.signing import key_digest, signature_fault
from tasks.store import fetch
from tasks.tracking import client_of, open_run
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from r1kit.config import PromotionConfig

PROMOTED: tuple[Environment, ...] = ("staging", "production")


class Busy(ValueError):
    """Another command is changing the environments."""


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
    """Let a model into an environment if every gate lets it through.

    Raises PromotionRefused naming each gate that does not, and ValueError where another promotion is under
    way or was quicker.
    """
    if to not in PROMOTED:
        raise ValueError(f"{to!r} is not an environment to promote to; there are {' and '.join(PROMOTED)}")
    ledger, name = open_ledger(workspace), family_of(reference, name)
    seen = history(ledger.entries(), name, to)
    with environment_lock(workspace):
        recover(workspace, name)
        entries = ledger.entries()
        stack = history(entries, name, to)
        if [r.digest for r in stack] != [r.digest for r in seen]:
            raise ValueError(f"{to} changed hands meanwhile; run again to be compared with its new holder")
        question = _question(workspace, ledger, reference, to, settings, name, approvers)
        if question.holder is not None and question.holder.artifact.digest == question.model.artifact.digest:
            raise ValueError(f"{to} already holds {question.model.title}: {question.holder.title}")
        gates = check_gates(question)
        if not all(gate.passed for gate in gates):
            raise PromotionRefused(question.model, to, gates)
        done = _carry_out(question, gates, actor or getpass.getuser())
        project_aliases(workspace, name)
    facts = done.entry.facts
    return Promotion(to, facts["name"], facts["version"], facts["model"], facts["previous"], tuple(gates))


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
    return check_gates(_question(workspace, open_ledger(workspace), reference, to, settings, name, approvers))


def rollback(
    workspace: Workspace, environment: Environment, *, name: str = "r1kit", actor: str = "", reason: str = ""
) -> Promotion:
    """Give an environment back to the model that held it before, and note it in the ledger.

    Raises ValueError where there is none, or where its copy was altered.
    """
    with environment_lock(workspace):
        recover(workspace, name)
        ledger = open_ledger(workspace)
        stack = history(ledger.entries(), name, environment)
        if len(stack) < 2:
            held = f"only {_title(stack[-1])} was ever promoted to it" if stack else "nothing was ever promoted to it"
            raise ValueError(f"{environment} cannot be rolled back: {held}")
        left, back = stack[-1], stack[-2]
        wrong = _copy_fault(workspace, back)
        if wrong:
            raise ValueError(f"{environment} cannot be rolled back to {_title(back)}: {wrong}")
        facts = {
            **{key: back.entry.facts[key] for key in ("name", "version", "environment", "model", "mlflow_run_id")},
            "previous": left.entry.facts["version"],
            "actor": actor or getpass.getuser(),
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
        ledger.append(entry)
        project_aliases(workspace, name)
    return Promotion(environment, facts["name"], facts["version"], facts["model"], facts["previous"])


@contextlib.contextmanager
def environment_lock(workspace: Workspace) -> Iterator[None]:
    """Held by the one command that changes environments. Raises `Busy` where another holds it."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    with (workspace.root / "environments.lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy("another promotion or rollback is under way here; try again when it is done") from None
        yield


def unfinished(entries: Sequence[Recorded]) -> list[Recorded]:
    """Promotions that were begun and neither finished nor undone."""
    ended = {r.entry.facts.get("intent") for r in entries if r.entry.status in ("done", "undone")}
    return [r for r in entries if r.entry.status == "intended" and r.sequence not in ended]


def recover(workspace: Workspace, name: str = "r1kit") -> list[str]:
    """Finish or undo what a killed promotion left. Call it with the lock held; says what it did."""
    ledger = open_ledger(workspace)
    said = []
    for intent in unfinished(ledger.entries()):
        version = _version_of(workspace, intent)
        copies = _copies_of(workspace, intent, version) if version else None
        if version is None or copies is None:
            _undo(workspace, ledger, intent)
            said.append(f"undid the promotion of {_title(intent)} that was cut off")
        else:
            _finish(workspace, ledger, intent, copies, str(version.version), str(version.run_id))
            client_of(workspace).set_terminated(version.run_id, status="FINISHED")
            said.append(f"finished the promotion of {_title(intent)} that was cut off")
    return said + (project_aliases(workspace, name) if said else [])


def project_aliases(workspace: Workspace, name: str = "r1kit") -> list[str]:
    """Set MLflow's aliases `current` and `previous` to what the ledger says; says what had to change."""
    client, ledger = client_of(workspace), open_ledger(workspace)
    entries, head, said = ledger.entries(), ledger.head(), []
    for environment in PROMOTED:
        full_name, stack = f"{name}-{environment}", history(entries, name, environment)
        if not stack:
            continue
        ensure_registered_model(client, full_name)
        model = client.get_registered_model(full_name)
        aliases = dict(model.aliases)
        for alias, place in (("current", 1), ("previous", 2)):
            wanted = stack[-place].entry.facts["version"] if len(stack) >= place else None
            found = aliases.get(alias)
            if wanted is not None and str(found) != wanted:
                client.set_registered_model_alias(full_name, alias, wanted)
            elif wanted is None and found is not None:
                client.delete_registered_model_alias(full_name, alias)
            else:
                continue
            said.append(f"{full_name}@{alias} was {found or 'unset'}, is {wanted or 'unset'} by the ledger")
        if not _is_anchored(model, entries, full_name):
            anchor(client, full_name, head)
    return said


def _is_anchored(model: Any, entries: Sequence[Recorded], full_name: str) -> bool:
    """Whether the registered model remembers its last promotion or rollback, or an entry after it."""
    sequence, digest = (model.tags.get(tag) for tag in ANCHOR_TAGS)
    known = {str(r.sequence): r.digest for r in entries}
    events = [r for r in entries if r.entry.status == "done" and r.entry.facts.get("name") == full_name]
    return digest is not None and known.get(sequence) == digest and int(sequence) >= events[-1].sequence


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
        return _finish(workspace, ledger, intent, copies, version, run_id)
    except Exception:
        _undo(workspace, ledger, intent)
        raise


def _intend(question: Question, begin: Entry) -> Recorded:
    """Append the intent right after a state in which the environment is still as the gates saw it."""
    full_name, ledger = begin.facts["name"], question.ledger
    seen = [r.digest for r in history(question.entries, question.name, question.to)]
    while True:
        entries = ledger.entries()
        rivals = [r for r in unfinished(entries) if r.entry.facts["name"] == full_name]
        if rivals or [r.digest for r in history(entries, question.name, question.to)] != seen:
            raise ValueError(f"another promotion to {question.to} was quicker; run again to be compared with it")
        try:
            return ledger.append(begin, after=Head(entries[-1].sequence, entries[-1].digest))
        except LedgerMoved:
            continue


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
    with open_run(workspace, f"promote-{question.to}", experiment=full_name, tags=tags) as run:
        signature, evidence = fetch(model.signature, workspace), fetch(model.evidence, workspace)
        copies = copy_model(workspace, run, model.artifact, evidence, signature)
        tags |= {f"r1kit.{edge.role}": edge.artifact.model_dump_json() for edge in copies.edges()}
        version = create_version(workspace, run, question.name, question.to, tags, question.ledger.head())
    return copies, version, run.run_id


def _finish(
    workspace: Workspace, ledger: Ledger, intent: Recorded, copies: Copies, version: str, run_id: str
) -> Recorded:
    facts = {
        **intent.entry.facts,
        "version": version,
        "intent": intent.sequence,
        "mlflow_run_id": run_id,
        "signing_key_digest": key_digest(workspace),
    }
    return ledger.append(intent.entry.model_copy(update={"status": "done", "outputs": copies.edges(), "facts": facts}))


def _undo(workspace: Workspace, ledger: Ledger, intent: Recorded) -> None:
    """Note that nothing came of it, and give up its version and its run."""
    version = _version_of(workspace, intent)
    client = client_of(workspace)
    if version is not None:
        client.delete_model_version(version.name, version.version)
    for run in _runs_of(workspace, intent):
        client.delete_run(run.info.run_id)
    facts = {**intent.entry.facts, "intent": intent.sequence}
    ledger.append(intent.entry.model_copy(update={"status": "undone", "facts": facts}))


def _version_of(workspace: Workspace, intent: Recorded) -> Any | None:
    """The registry's version that this promotion made, if it came so far."""
    found = client_of(workspace).search_model_versions(f"name = '{intent.entry.facts['name']}'")
    return next((v for v in found if v.tags.get("r1kit.intent") == str(intent.sequence)), None)


def _runs_of(workspace: Workspace, intent: Recorded) -> list[Any]:
    client = client_of(workspace)
    experiment = client.get_experiment_by_name(intent.entry.facts["name"])
    if experiment is None:
        return []
    return list(client.search_runs([experiment.experiment_id], f"tags.`r1kit.intent` = '{intent.sequence}'"))


def _copies_of(workspace: Workspace, intent: Recorded, version: Any) -> Copies | None:
    """The copies that a version's tags name, if they are whole and are what was meant."""
    meant = intent.entry.input("model")
    try:
        parts = {
            role: Artifact.model_validate_json(version.tags[f"r1kit.{role}"])
            for role in ("model", "signature", "evidence")
        }
        places = {role: fetch(part, workspace) for role, part in parts.items()}
    except (KeyError, ValueError):
        return None
    same = meant is not None and parts["model"].digest == meant.digest
    if not same or signature_fault(places["model"], places["signature"], workspace):
        return None
    return Copies(parts["model"], parts["signature"], parts["evidence"])


def _copy_fault(workspace: Workspace, recorded: Recorded) -> str | None:
    """Why an environment's copy cannot be used; None if bytes and signature hold."""
    model = from_version(recorded, "")
    assert model.signature is not None, "a promotion has its signature"
    for part in (model.artifact, model.signature):
        wrong = fault(part) if part.path else None
        if wrong:
            return wrong
    return signature_fault(fetch(model.artifact, workspace), fetch(model.signature, workspace), workspace)


def _title(recorded: Recorded) -> str:
    facts = recorded.entry.facts
    version = f"/{facts['version']}" if "version" in facts else ""
    return f"{facts['name']}{version} ({facts['model']})"
