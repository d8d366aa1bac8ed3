"""Publishing artifacts into MLflow's store and getting them back, verified."""

import shutil
import tempfile
from pathlib import Path

from tasks.artifacts import Artifact, describe, digest_directory, fault, local_path
from tasks.tracking import TrackingRun, client_of
from tasks.workspace import Workspace


def publish(path: Path, kind: str, run: TrackingRun, name: str = "") -> Artifact:
    """Copy a file or directory into the run's artifacts as `name` (default: its kind), and check the copy.

    Raises ValueError where the copy differs from the original.
    """
    source = describe(path, kind)
    place = name or kind
    destination = local_path(run.artifact_uri)
    if destination is not None and (destination / place).is_dir():
        shutil.rmtree(destination / place)
    if path.is_dir():
        run.client.log_artifacts(run.run_id, str(path), place)
        uri = f"{run.artifact_uri}/{place}"
    else:
        run.client.log_artifact(run.run_id, str(path), place)
        uri = f"{run.artifact_uri}/{place}/{path.name}"
    if destination is not None:
        uri = (destination / place if path.is_dir() else destination / place / path.name).as_uri()
    artifact = source.model_copy(update={"uri": uri})
    wrong = fault(artifact) if destination is not None else None
    if wrong:
        raise ValueError(f"{wrong} while it was being published; is the disk full?")
    return artifact


def fetch(artifact: Artifact, workspace: Workspace) -> Path:
    """A verified local path of an artifact: in place where it is on this machine, else in the cache.

    Raises ValueError where the bytes are missing or are not those recorded.
    """
    if artifact.path is not None:
        wrong = fault(artifact)
        if wrong:
            raise ValueError(f"{artifact.kind}: {wrong}; run again to make it anew, or restore it from a backup")
        return artifact.path
    name = artifact.uri.rstrip("/").rsplit("/", 1)[-1]
    cached = workspace.cache_dir / "artifacts" / artifact.digest.removeprefix("sha256:") / name
    if not (cached.exists() and digest_directory(cached) == artifact.digest):
        _download(artifact, cached, workspace)
    return cached


def download(artifact: Artifact, directory: Path, workspace: Workspace) -> Path:
    """Fetch a remote artifact into a directory as it lies in its store now, unchecked. Raises what the store raises."""
    client_of(workspace)  # sets MLflow's environment before the import below
    from mlflow.artifacts import download_artifacts

    place = download_artifacts(artifact_uri=artifact.uri, dst_path=str(directory), tracking_uri=workspace.mlflow_uri)
    return Path(place)


def _download(artifact: Artifact, destination: Path, workspace: Workspace) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        got = download(artifact, Path(scratch), workspace)
        found = digest_directory(got)
        if found != artifact.digest:
            raise ValueError(f"{artifact.uri} was altered: {found[:19]}…, not {artifact.digest[:19]}…")
        if destination.is_dir():
            shutil.rmtree(destination)
        got.replace(destination)
