"""Changing environments one at a time, and finishing or undoing what was killed in the middle.

On one machine a lock of the file system keeps commands apart. Commands on different machines meet in the ledger: an
intent is appended only after a state that was looked at, and it is ended once, done or undone, whoever is first.
"""

import contextlib
import fcntl
import socket
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from tasks.artifacts import Artifact
from tasks.ledger import Entry, Head, Ledger, LedgerMoved, Recorded, open_ledger
from tasks.lineage import ENVIRONMENTS, families, family_of, history
from tasks.reach import environment_roots, holders, needed_by, unfinished
from tasks.registry import heal_versions, project_aliases, restore_runs
from tasks.signing import key_digest, signature_fault
from tasks.store import fetch, remove
from tasks.tracking import answering, client_of
from tasks.vault import Copies, place_of, restore_lineage
from tasks.workspace import Workspace

LEASE_SECONDS = 900.0
"""So long after its intent, a promotion begun from another machine or workspace is taken to be still at work."""


class Busy(ValueError):
    """Another command is changing the environments."""


@contextlib.contextmanager
def environment_lock(workspace: Workspace) -> Iterator[None]:
    """Held by the one command that changes environments. Raises `Busy` where another holds it."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    with (workspace.root / "environments.lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy("another promotion, rollback or gc is under way here; try again when it is done") from None
        yield


def here(workspace: Workspace) -> str:
    """Names this machine and workspace, in the intents that are begun from it."""
    return f"{socket.gethostname()}:{workspace.root}"


def under_way(workspace: Workspace, intent: Recorded) -> bool:
    """Whether somebody elsewhere may still be at work on it. Asked with the lock held, so that nobody here is."""
    age = (datetime.now(UTC) - datetime.fromisoformat(intent.time)).total_seconds()
    return intent.entry.facts.get("by") != here(workspace) and age < LEASE_SECONDS


def append_after(ledger: Ledger, entry: Entry, seen: Sequence[Recorded]) -> Recorded | None:
    """Append right after the entries that were looked at; None where something came between."""
    try:
        return ledger.append(entry, after=Head(seen[-1].sequence, seen[-1].digest))
    except LedgerMoved:
        return None


def end(ledger: Ledger, intent: Recorded, entry: Entry) -> Recorded:
    """End an intent by an entry that is done or undone. Whoever ended it first counts: that entry comes back."""
    assert entry.facts.get("intent") == intent.sequence, "the entry that ends an intent names it"
    while True:
        entries = ledger.entries()
        ended = [r for r in entries if r.entry.facts.get("intent") == intent.sequence and r.entry.status != "intended"]
        if ended:
            return ended[0]
        append_after(ledger, entry, entries)


def recover(workspace: Workspace, name: str = "r1kit") -> list[str]:
    """Finish or undo what a killed promotion left, and take back what MLflow deleted of what environments need.

    Call it with the lock held; says what it did.
    """
    ledger = open_ledger(workspace)
    left = [intent for intent in unfinished(ledger.entries()) if not under_way(workspace, intent)]
    said = [_finish_or_undo(workspace, ledger, intent) for intent in left]
    entries = ledger.entries()
    if any(holders(entries, family) for family in families(entries)):
        said += _take_back(workspace, entries, name)
    return said + project_aliases(workspace, name)


def finish(
    workspace: Workspace, ledger: Ledger, intent: Recorded, copies: Copies, version: str, run_id: str
) -> Recorded:
    """The entry that makes a promotion. Raises ValueError where another command has undone it meanwhile."""
    facts = {
        **intent.entry.facts,
        "version": version,
        "intent": intent.sequence,
        "mlflow_run_id": run_id,
        "signing_key_digest": key_digest(workspace),
    }
    done = intent.entry.model_copy(update={"status": "done", "outputs": copies.edges(), "facts": facts})
    ended = end(ledger, intent, done)
    if ended.entry.status == "undone":
        raise ValueError(f"the promotion of {title(intent)} was undone by another command meanwhile; run it again")
    return ended


def undo(workspace: Workspace, ledger: Ledger, intent: Recorded) -> Recorded:
    """Note that nothing came of it, then give up its version, its run and its copies, as far as the store answers."""
    facts = {**intent.entry.facts, "intent": intent.sequence}
    ended = end(ledger, intent, intent.entry.model_copy(update={"status": "undone", "facts": facts}))
    if ended.entry.status == "undone":
        with contextlib.suppress(ValueError), answering(workspace):
            _tidy(workspace, intent)
    return ended


def title(recorded: Recorded) -> str:
    """`r1kit-staging/3 (r1)`."""
    facts = recorded.entry.facts
    version = f"/{facts['version']}" if "version" in facts else ""
    return f"{facts['name']}{version} ({facts['model']})"


def _finish_or_undo(workspace: Workspace, ledger: Ledger, intent: Recorded) -> str:
    version = _version_of(workspace, intent)
    copies = _copies_of(workspace, intent, version) if version else None
    if version is None or copies is None:
        undo(workspace, ledger, intent)
        return f"undid the promotion of {title(intent)} that was cut off"
    finish(workspace, ledger, intent, copies, str(version.version), str(version.run_id))
    client_of(workspace).set_terminated(version.run_id, status="FINISHED")
    return f"finished the promotion of {title(intent)} that was cut off"


def _take_back(workspace: Workspace, entries: Sequence[Recorded], name: str) -> list[str]:
    """Runs, experiments, versions and bytes that MLflow deleted although an environment needs them."""
    roots = environment_roots(entries)
    needed = {artifact.digest for artifact in needed_by(entries, roots)}
    makers = [r for r in entries if any(edge.artifact.digest in needed for edge in r.entry.outputs)]
    runs = {str(r.entry.facts.get("mlflow_run_id", "")) for r in makers}
    own = {f"{family}-{environment}" for family in families(entries) for environment in ENVIRONMENTS}
    said = restore_runs(workspace, runs, {"r1kit", *own})
    said += restore_lineage(workspace, entries, name, roots)
    return said + heal_versions(workspace, entries, name, "candidate")


def _tidy(workspace: Workspace, intent: Recorded) -> None:
    version, client = _version_of(workspace, intent), client_of(workspace)
    if version is not None:
        client.delete_model_version(version.name, version.version)
    for run in _runs_of(workspace, intent):
        client.delete_run(run.info.run_id)
    remove(place_of(workspace, family_of(intent.entry.facts["name"], ""), intent), workspace)


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


def changed_hands(entries: Sequence[Recorded], name: str, environment: str, seen: Sequence[Recorded]) -> bool:
    """Whether an environment's promotions in force are not those that were seen."""
    return [r.digest for r in history(entries, name, environment)] != [r.digest for r in seen]
