"""Publishing artifacts into MLflow's store and getting them back, verified."""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tasks.artifacts import Artifact, describe, digest_directory, fault, local_path
from tasks.tracking import TrackingRun, client_error, client_of
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


def place(path: Path, kind: str, uri: str, workspace: Workspace, *, linked: bool = False) -> Artifact:
    """Copy a file or directory below an address that no MLflow run owns, and read the copy back to check it.

    The copy appears whole or not at all where the address is on this machine. With `linked` it shares its bytes with
    the original where the file system can do that: a protection against deletion that takes no room.
    Raises ValueError where what the store gives back differs from what it was given.
    """
    source = describe(path, kind)
    address = f"{uri}/{path.name}"
    target = local_path(address)
    if target is not None:
        _copy_whole(path, target, _link if linked else _copy_synced)
        wrong = None if linked else fault(source.model_copy(update={"uri": target.as_uri()}))
        address = target.as_uri()
    else:
        repository = _repository(address if path.is_dir() else uri, workspace)
        repository.log_artifacts(str(path)) if path.is_dir() else repository.log_artifact(str(path))
        wrong = store_fault(source.model_copy(update={"uri": address}), workspace)
    if wrong:
        raise ValueError(f"the store did not keep what it was given: {wrong}; look after the store and run again")
    return source.model_copy(update={"uri": address})


def is_there(uri: str, workspace: Workspace) -> bool:
    """Whether the store has a file, or anything below a folder, at an address."""
    path = local_path(uri)
    if path is not None:
        return path.exists()
    parent, _, name = uri.rstrip("/").rpartition("/")
    return name in children(parent, workspace)


def children(uri: str, workspace: Workspace) -> list[str]:
    """Names of what lies directly below an address."""
    path = local_path(uri)
    if path is not None:
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    repository = _repository(uri, workspace)
    found = repository.list_artifacts()
    # Some S3 servers go on listing folders whose last file was deleted.
    there = [info for info in found if not info.is_dir or next(_files_below(repository, info.path), None)]
    return sorted(info.path.rsplit("/", 1)[-1] for info in there)


def size_of(uri: str, workspace: Workspace) -> int:
    """Bytes of the files at or below an address."""
    path = local_path(uri)
    if path is not None:
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
        return sum(file.stat().st_size for file in files)
    return sum(info.file_size or 0 for info in _files_below(_repository(uri, workspace)))


def _files_below(repository: Any, folder: str | None = None) -> Iterator[Any]:
    """MLflow's description of each file below a folder of a repository."""
    for info in repository.list_artifacts(folder):
        if info.is_dir:
            yield from _files_below(repository, info.path)
        else:
            yield info


def remove(uri: str, workspace: Workspace) -> None:
    """Delete the file or folder at an address; nothing happens where there is none."""
    path = local_path(uri)
    if path is None:
        _repository(uri, workspace).delete_artifacts()
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


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


def store_fault(artifact: Artifact, workspace: Workspace) -> str | None:
    """Why the bytes at an artifact's address are not those recorded; None if they are. Remote ones are fetched anew."""
    if artifact.path is not None:
        return fault(artifact)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = digest_directory(download(artifact, Path(scratch), workspace))
        except ValueError as error:
            return str(error)
    return None if found == artifact.digest else _altered(artifact, found)


def _altered(artifact: Artifact, found: str) -> str:
    return f"{artifact.uri} was altered: {found[:19]}…, not {artifact.digest[:19]}…"


def _download(artifact: Artifact, destination: Path, workspace: Workspace) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        got = download(artifact, Path(scratch), workspace)
        found = digest_directory(got)
        if found != artifact.digest:
            raise ValueError(_altered(artifact, found))
        if destination.is_dir():
            shutil.rmtree(destination)
        got.replace(destination)


def download(artifact: Artifact, directory: Path, workspace: Workspace) -> Path:
    """Fetch a remote artifact into a directory as it lies in its store now, unchecked.

    Raises ValueError where nothing is there, or the store does not give it.
    """
    client_of(workspace)  # sets MLflow's environment before the import below
    from mlflow.artifacts import download_artifacts

    try:
        got = Path(
            download_artifacts(artifact_uri=artifact.uri, dst_path=str(directory), tracking_uri=workspace.mlflow_uri)
        )
    except Exception as error:  # MLflow lets its many clients' errors through, which share no class; others go on
        if (what := client_error(error)) is None:
            raise
        raise ValueError(f"{artifact.uri} cannot be fetched: {what}") from error
    if not got.exists() or (got.is_dir() and not any(path.is_file() for path in got.rglob("*"))):
        raise ValueError(f"{artifact.uri} is missing")
    return got


def _repository(uri: str, workspace: Workspace) -> Any:
    """MLflow's access to an address."""
    client_of(workspace)
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(uri, tracking_uri=workspace.mlflow_uri)


def _copy_whole(path: Path, target: Path, copy: Callable[[str, str], Any]) -> None:
    """Copy beside the target and rename; what stood there before goes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}-{uuid.uuid4().hex}")
    if path.is_dir():
        shutil.copytree(path, scratch, copy_function=copy)
        if target.is_dir():
            shutil.rmtree(target)
    else:
        copy(str(path), str(scratch))
    scratch.replace(target)


def _copy_synced(source: str, target: str) -> None:
    shutil.copyfile(source, target)
    with open(target, "rb+") as stream:
        os.fsync(stream.fileno())


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        _copy_synced(source, target)
