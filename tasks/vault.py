"""The vault: bytes that environments need, under a prefix of their own that no MLflow run or experiment owns.

MLflow deletes a run's or an experiment's artifacts with it, whatever its registry points to. So what staging and
production hold lies beside them, `environments/<registered model>/<ledger entry>/`, and so does all that their lineage
is made of, `environments/lineage/<digest>/`: by hard links where the store is a file system, else as copies.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.artifacts import Artifact, local_path
from tasks.ledger import Edge, Recorded
from tasks.lineage import families, of_kind
from tasks.reach import needed_by
from tasks.store import children, fetch, is_there, place, store_fault
from tasks.tracking import client_of, experiment_id
from tasks.workspace import Workspace


@dataclass(frozen=True)
class Copies:
    """A model's three parts under one prefix."""

    model: Artifact
    signature: Artifact
    evidence: Artifact

    def edges(self) -> tuple[Edge, ...]:
        """As the outputs of a ledger entry."""
        parts = {"model": self.model, "signature": self.signature, "evidence": self.evidence}
        return tuple(Edge(role=role, artifact=artifact) for role, artifact in parts.items())


def vault_uri(workspace: Workspace, name: str) -> str:
    """Where the vault is: beside the artifacts of the family's experiments."""
    home = client_of(workspace).get_experiment(experiment_id(workspace, f"{name}-candidate"))
    local = local_path(str(home.artifact_location))
    location = local.as_uri() if local else str(home.artifact_location)
    return f"{location.rstrip('/').rpartition('/')[0]}/environments"


def place_of(workspace: Workspace, name: str, intent: Recorded) -> str:
    """Where the copies of a promotion go: their own folder, named by the ledger entry that intended it."""
    return f"{vault_uri(workspace, name)}/{intent.entry.facts['name']}/{intent.sequence}"


def copy_model(workspace: Workspace, uri: str, model: Artifact, evidence: Path, signature: Path) -> Copies:
    """Copy a model, its evidence and its signature below an address of the vault, each read back and checked."""
    parts = {"model": fetch(model, workspace), "signature": signature, "evidence": evidence}
    placed = {role: place(path, role, f"{uri}/{role}", workspace) for role, path in parts.items()}
    return Copies(placed["model"], placed["signature"], placed["evidence"])


def keep_lineage(workspace: Workspace, entries: Sequence[Recorded], name: str, roots: Sequence[Artifact]) -> None:
    """Hold on to all that these artifacts were made from and examined with, as far as MLflow could delete it."""
    vault = vault_uri(workspace, name)
    for artifact in owned_by_mlflow(needed_by(entries, roots), vault):
        home = lineage_uri(vault, artifact)
        if not is_there(home, workspace) and is_there(artifact.uri, workspace):
            with contextlib.suppress(ValueError):  # altered: the audit says so, and it is not worth keeping
                place(fetch(artifact, workspace), artifact.kind, home, workspace, linked=True)


def restore_lineage(
    workspace: Workspace, entries: Sequence[Recorded], name: str, roots: Sequence[Artifact]
) -> list[str]:
    """Put back from the vault what the lineage of these artifacts has lost; says what."""
    vault, said = vault_uri(workspace, name), []
    for artifact in owned_by_mlflow(needed_by(entries, roots), vault):
        if is_there(artifact.uri, workspace) or not is_there(lineage_uri(vault, artifact), workspace):
            continue
        parent, _, basename = artifact.uri.rstrip("/").rpartition("/")
        kept = artifact.model_copy(update={"uri": f"{lineage_uri(vault, artifact)}/{basename}"})
        place(fetch(kept, workspace), artifact.kind, parent, workspace, linked=True)
        said.append(f"{artifact.kind} {artifact.digest[:19]}… was gone from {artifact.uri} and is back from the vault")
    return said


def vault_faults(workspace: Workspace, entries: Sequence[Recorded]) -> Iterator[str]:
    """What the vault keeps of lineages, hashed again: what was altered, and what promotions put there and is gone."""
    named = {str(item["uri"]) for r in of_kind(entries, "deletion") for item in r.entry.facts.get("items", ())}
    for home in {f"{vault_uri(workspace, name)}/lineage" for name in families(entries)}:
        found = {digest: children(f"{home}/{digest}", workspace) for digest in children(home, workspace)}
        for digest, names in found.items():
            for name in names:
                kept = Artifact(kind="", uri=f"{home}/{digest}/{name}", digest=f"sha256:{digest}", size_bytes=0)
                if wrong := store_fault(kept, workspace):
                    yield f"what the vault keeps of a lineage: {wrong}"
        for artifact in _put_there(entries, home.removesuffix("/lineage")):
            digest, name = artifact.digest.removeprefix("sha256:"), artifact.uri.rstrip("/").rpartition("/")[2]
            if name not in found.get(digest, ()) and f"{home}/{digest}" not in named:
                uri = f"{home}/{digest}/{name}"
                yield f"what the vault keeps of a lineage: {local_path(uri) or uri} is missing"


def _put_there(entries: Sequence[Recorded], vault: str) -> Iterator[Artifact]:
    """What each promotion had to keep: its lineage as the ledger knew it then, one name a digest."""
    seen: set[str] = set()
    for recorded in of_kind(entries, "promotion"):
        if recorded.entry.status == "done":
            before = [r for r in entries if r.sequence < recorded.entry.facts["intent"]]
            for artifact in owned_by_mlflow(
                needed_by(before, [edge.artifact for edge in recorded.entry.outputs]), vault
            ):
                if artifact.digest not in seen:
                    seen.add(artifact.digest)
                    yield artifact


def lineage_uri(vault: str, artifact: Artifact) -> str:
    """The folder of one artifact of a lineage."""
    return f"{vault}/lineage/{artifact.digest.removeprefix('sha256:')}"


def owned_by_mlflow(artifacts: Sequence[Artifact], vault: str) -> list[Artifact]:
    """Those that lie in MLflow's store, each digest and address once; data sets that DVC keeps do not."""
    store = vault.rpartition("/")[0] + "/"
    return [a for a in artifacts if a.uri.startswith(store) and not a.uri.startswith(f"{vault}/")]
