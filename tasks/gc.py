"""Making room: what nothing needs any more, told first, deleted only after the ledger has it.

Needed is what environments hold or can be rolled back to, what the latest runs made, and all that these were made from
and examined with (`tasks.reach`). Only what r1kit made goes: data sets are DVC's, metrics and registrations stay.
"""

import contextlib
import fcntl
import getpass
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.artifacts import Artifact
from tasks.ledger import Edge, Entry, Ledger, Recorded, open_ledger
from tasks.lineage import ENVIRONMENTS, families, made, model_name
from tasks.reach import alive, environment_roots, latest_runs, needed_by, run_roots, unfinished
from tasks.recovery import Busy, append_after, end, environment_lock, recover, under_way
from tasks.store import children, is_there, remove, size_of
from tasks.tracking import answering, client_of
from tasks.vault import owned_by_mlflow, place_of, vault_uri
from tasks.workspace import Workspace, is_held

if TYPE_CHECKING:
    from r1kit.promotion import GcConfig

SCRATCH_SECONDS = 3600.0
"""Scratch files that are older were left by a command that was killed."""
PARTS = ("model", "signature", "evidence")


@dataclass(frozen=True)
class Item:
    """One thing that may go."""

    what: str
    why: str
    uri: str
    size_bytes: int
    digest: str = ""
    """Of an artifact that the ledger knows."""
    kind: str = ""
    version: str = ""
    """`r1kit-candidate/3`, whose version in MLflow's registry goes too."""


@dataclass(frozen=True)
class Freed:
    """What a deletion came to."""

    items: tuple[Item, ...]
    sequence: int
    """The ledger entry that has it; 0 where nothing was to be done."""


def plan(workspace: Workspace, settings: "GcConfig") -> list[Item]:
    """What would go, largest first. Changes nothing."""
    with answering(workspace):
        return _plan(workspace, open_ledger(workspace).entries(), settings, at_work=is_held(workspace))


def collect(workspace: Workspace, settings: "GcConfig", *, actor: str = "") -> Freed:
    """Finish a deletion that was killed, and delete what `plan` shows, after the ledger has it.

    Raises ValueError where a promotion is under way, here or elsewhere.
    """
    ledger = open_ledger(workspace)
    with answering(workspace), _no_run(workspace), environment_lock(workspace):
        for name in families(ledger.entries()):
            recover(workspace, name)
        for left in unfinished(ledger.entries(), "deletion"):
            _delete(workspace, ledger, left)
        while True:
            entries = ledger.entries()
            for rival in (r for r in unfinished(entries) if under_way(workspace, r)):
                where = rival.entry.facts.get("by", "another machine")
                raise Busy(f"a promotion is under way from {where} since {rival.time[:19]}; try again when it is done")
            items = _plan(workspace, entries, settings, at_work=False)
            if not items:
                return Freed((), 0)
            intent = append_after(ledger, _intention(items, actor or getpass.getuser()), entries)
            if intent is not None:
                _delete(workspace, ledger, intent)
                return Freed(tuple(items), intent.sequence)


@contextlib.contextmanager
def _no_run(workspace: Workspace) -> Iterator[None]:
    """Keep runs of this workspace away, which may take what an older one made. Raises `Busy` where one is at work."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    with workspace.lock.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"a run is at work in {workspace.root}; delete when it has ended") from None
        stream.truncate(0)
        stream.write("`r1 gc`")
        stream.flush()
        yield


def _intention(items: Sequence[Item], actor: str) -> Entry:
    known = [item for item in items if item.digest]
    artifacts = [Artifact(kind=i.kind, uri=i.uri, digest=i.digest, size_bytes=i.size_bytes) for i in known]
    return Entry(
        kind="deletion",
        job="gc",
        status="intended",
        inputs=tuple(Edge(role=artifact.kind, artifact=artifact) for artifact in artifacts),
        facts={"items": [asdict(item) for item in items], "actor": actor},
    )


def _delete(workspace: Workspace, ledger: Ledger, intent: Recorded) -> None:
    """Delete what an intention lists, as often as it takes; what has become needed since is left."""
    entries = ledger.entries()
    needed = {artifact.digest for artifact in needed_by(entries, environment_roots(entries))}
    remade = {(e.artifact.digest, e.artifact.uri) for r in entries if r.sequence > intent.sequence and made(r)
              for e in r.entry.outputs}  # fmt: skip
    items = [Item(**item) for item in intent.entry.facts["items"]]
    for item in items:
        if item.digest and (item.digest in needed or (item.digest, item.uri) in remade):
            continue
        if item.version:
            _delete_version(workspace, item.version)
        if is_there(item.uri, workspace):
            remove(item.uri, workspace)
    facts = {"intent": intent.sequence, "actor": intent.entry.facts["actor"]}
    end(ledger, intent, Entry(kind="deletion", job="gc", status="done", facts=facts))


def _delete_version(workspace: Workspace, title: str) -> None:
    full_name, _, number = title.partition("/")
    found = client_of(workspace).search_model_versions(f"name = '{full_name}'")
    if any(str(version.version) == number for version in found):
        client_of(workspace).delete_model_version(full_name, number)


def _plan(workspace: Workspace, entries: Sequence[Recorded], settings: "GcConfig", *, at_work: bool) -> list[Item]:
    roots = environment_roots(entries) + run_roots(entries, latest_runs(entries, settings.keep_runs))
    needed = {artifact.digest for artifact in needed_by(entries, roots)}
    names = families(entries)
    # Without a family there is no registered model, and so no store of ours that was ever told of in the ledger.
    vault = vault_uri(workspace, names[0]) if names else ""
    items = [
        *_artifacts(workspace, entries, needed, vault),
        *_undone(workspace, entries),
        *_pins(workspace, needed, vault),
    ]
    if not at_work:
        items += [*_failed_runs(workspace, entries, settings), *_workdirs(workspace, entries, settings)]
    items += [*_cached(workspace, needed), *_scratch(workspace)]
    distinct = {item.uri: item for item in items}
    return sorted(distinct.values(), key=lambda item: -item.size_bytes)


def _artifacts(workspace: Workspace, entries: Sequence[Recorded], needed: set[str], vault: str) -> Iterator[Item]:
    """Outputs of stages, candidates, and copies of models that were rolled back, that nothing needs."""
    there = alive(entries)
    for recorded in entries:
        entry = recorded.entry
        if entry.kind == "approval" or (entry.kind == "stage" and not made(recorded)) or entry.kind == "deletion":
            continue
        version = f"{entry.facts['name']}/{entry.facts['version']}" if "version" in entry.facts else ""
        for edge in entry.outputs:
            artifact = edge.artifact
            in_vault = bool(vault) and artifact.uri.startswith(f"{vault}/")
            if artifact.digest in needed or artifact.uri not in there[artifact.digest]:
                continue
            if not in_vault and not (vault and owned_by_mlflow([artifact], vault)):
                continue
            if version and edge.role != "model":
                continue  # evidence and signature are small, and say what the model was
            if is_there(artifact.uri, workspace):
                yield Item(
                    what=version or f"{edge.role} of {model_name(entry)}, run {entry.run}",
                    why=_why(recorded, in_vault),
                    uri=artifact.uri,
                    size_bytes=artifact.size_bytes,
                    digest=artifact.digest,
                    kind=artifact.kind,
                    version=version,
                )


def _why(recorded: Recorded, in_vault: bool) -> str:
    if in_vault:
        return f"rolled back from {recorded.entry.facts.get('environment')}, and no environment can return to it"
    if recorded.entry.kind == "registration":
        return "a candidate of an older run, in no environment"
    return "of an older run, and no kept model was made from it"


def _undone(workspace: Workspace, entries: Sequence[Recorded]) -> Iterator[Item]:
    """Copies that an undone promotion left."""
    undone = {r.entry.facts.get("intent") for r in entries if r.entry.status == "undone"}
    for intent in entries:
        if intent.sequence in undone:
            uri = place_of(workspace, _family(intent.entry.facts["name"]), intent)
            if is_there(uri, workspace):
                yield Item(
                    what=f"copies of {intent.entry.facts['source']}",
                    why=f"left by a promotion to {intent.entry.facts['environment']} that was undone",
                    uri=uri,
                    size_bytes=size_of(uri, workspace),
                )


def _pins(workspace: Workspace, needed: set[str], vault: str) -> Iterator[Item]:
    """What the vault held on to for a model that no environment can return to."""
    for digest in children(f"{vault}/lineage", workspace) if vault else ():
        if f"sha256:{digest}" not in needed:
            uri = f"{vault}/lineage/{digest}"
            yield Item(
                what=f"lineage sha256:{digest[:12]}…",
                why="kept for a model that no environment can return to",
                uri=uri,
                size_bytes=size_of(uri, workspace),
            )


def _failed_runs(workspace: Workspace, entries: Sequence[Recorded], settings: "GcConfig") -> Iterator[Item]:
    """What stages put into MLflow before they failed or were killed for good."""
    if not entries:
        return
    known = {str(r.entry.facts.get("mlflow_run_id")) for r in entries if r.entry.status in ("ran", "reused", "done")}
    names = ["r1kit", *(f"{name}-{environment}" for name in families(entries) for environment in ENVIRONMENTS)]
    client = client_of(workspace)
    homes = [e.experiment_id for e in client.search_experiments() if e.name in names]
    before = (time.time() - settings.keep_unfinished_days * 86400) * 1000
    token = None
    while homes:
        page = client.search_runs(homes, page_token=token)
        for run in page:
            info, uri = run.info, str(run.info.artifact_uri)
            over = info.status in ("FAILED", "KILLED") or info.start_time < before
            if info.run_id not in known and over and children(uri, workspace):
                yield Item(
                    what=f"MLflow run {info.run_name} ({info.status.lower()})",
                    why="no finished stage has it",
                    uri=uri,
                    size_bytes=size_of(uri, workspace),
                )
        token = page.token
        if not token:
            break


def _workdirs(workspace: Workspace, entries: Sequence[Recorded], settings: "GcConfig") -> Iterator[Item]:
    """Checkpoints of stages that were finished since, or that nobody went on with for long."""
    finished = {str(r.entry.facts.get("key", "")).removeprefix("sha256:") for r in entries if made(r)}
    for path in sorted(workspace.work_dir.iterdir()) if workspace.work_dir.is_dir() else ():
        days = (time.time() - _touched(path)) / 86400
        if path.name in finished:
            yield _local("checkpoints", "of a stage that is finished", path, workspace)
        elif days >= settings.keep_unfinished_days:
            yield _local("checkpoints", f"of a stage that nobody went on with for {days:.0f} days", path, workspace)


def _cached(workspace: Workspace, needed: set[str]) -> Iterator[Item]:
    """Downloaded copies of what nothing needs."""
    home = workspace.cache_dir / "artifacts"
    for path in sorted(home.iterdir()) if home.is_dir() else ():
        if f"sha256:{path.name}" not in needed:
            yield _local("downloaded copy", "of what no kept model needs", path, workspace)


def _scratch(workspace: Workspace) -> Iterator[Item]:
    """Files that a killed command was about to rename."""
    before, found = time.time() - SCRATCH_SECONDS, set()
    for home, pattern in (
        (workspace.root, ".probe.*"), (workspace.ledger_dir, ".*-*"), (workspace.keys_dir, ".signing.*-*"),
        (workspace.runs_dir, ".latest.*"), (workspace.runs_dir, "*/.*.*"), (workspace.stages_dir, "*/.*.*"),
        (workspace.artifacts_dir / "environments" / "lineage", "*/.*-*"),
    ):  # fmt: skip
        found |= set(home.glob(pattern))
    for path in sorted(found):
        if _touched(path) < before:
            yield _local("scratch file", "left by a command that was killed", path, workspace)


def _local(what: str, why: str, path: Path, workspace: Workspace) -> Item:
    uri = path.resolve().as_uri()
    return Item(what=f"{what} {path.name[:19]}", why=why, uri=uri, size_bytes=size_of(uri, workspace))


def _touched(path: Path) -> float:
    """When a file, or anything in a folder, was last changed."""
    times = [path.lstat().st_mtime, *(p.lstat().st_mtime for p in path.rglob("*"))] if path.is_dir() else []
    return max(times, default=path.lstat().st_mtime)


def _family(full_name: str) -> str:
    return full_name.rpartition("-")[0]


def as_rows(items: Sequence[Item]) -> list[dict[str, Any]]:
    """As JSON."""
    return [{name: value for name, value in asdict(item).items() if value not in ("",)} for item in items]
