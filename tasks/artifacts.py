"""What travels between tasks: a reference to bytes, with the digest that proves them."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import unquote, urlparse

from pydantic import Field

from r1kit.schema import Section

DIGEST_PATTERN = r"^sha256:[0-9a-f]{64}$"


class FileRecord(TypedDict):
    """One line of a manifest."""

    path: str
    size: int
    sha256: str


class Artifact(Section):
    """A file or directory that a stage made or used. Never tensors, never a bare path."""

    kind: str
    """What it is: `model`, `problems`, `evaluation` and so on."""
    uri: str
    """Where it is: file://, s3:// or MLflow's mlflow-artifacts:/."""
    digest: str = Field(pattern=DIGEST_PATTERN)
    """sha256 of the canonical manifest of its files."""
    size_bytes: int = Field(ge=0)
    """All its files together."""

    @property
    def path(self) -> Path | None:
        """Its place on this machine, or None where it lies elsewhere."""
        return local_path(self.uri)


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8. Raises ValueError on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(content: bytes) -> str:
    """`sha256:…` of some bytes."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digest_json(value: Any) -> str:
    """`sha256:…` of the canonical spelling of a JSON value."""
    return digest_bytes(canonical_json(value))


def manifest(path: Path) -> list[FileRecord]:
    """Every file below `path` with size and sha256, sorted by its path relative to `path`.

    A single file is a manifest of one whose path is empty, so that a file's digest does not depend on its
    name. Raises ValueError where there is nothing, or something that is neither file nor directory.
    """
    if path.is_file():
        return [_record(path, "")]
    if not path.is_dir():
        raise ValueError(f"{path} does not exist, so it has no digest; was it moved or deleted?")
    files = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if not p.is_dir())
    return [_record(file, relative) for relative, file in files]


def _record(file: Path, relative: str) -> FileRecord:
    if not file.is_file():
        raise ValueError(f"{file} is not a regular file and cannot be part of an artifact; remove it")
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"path": relative, "size": file.stat().st_size, "sha256": sha256}


def digest_directory(path: Path) -> str:
    """`sha256:…` over the canonical manifest of a directory, or of a single file."""
    return digest_json(manifest(path))


def describe(path: Path, kind: str) -> Artifact:
    """The artifact that lies at `path`, left where it is. Data sets, which DVC keeps, are described so."""
    records = manifest(path)
    size_bytes = sum(record["size"] for record in records)
    return Artifact(kind=kind, uri=path.resolve().as_uri(), digest=digest_json(records), size_bytes=size_bytes)


def local_path(uri: str) -> Path | None:
    """The path behind a file:// address or a bare absolute path; None for anything remote."""
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(uri) if parsed.scheme == "" and uri.startswith("/") else None


def fault(artifact: Artifact) -> str | None:
    """Why a local artifact is not the one that was recorded; None if its bytes are exactly those."""
    path = artifact.path
    if path is None:
        return f"{artifact.uri} is not on this machine"
    if not path.exists():
        return f"{path} is missing"
    found = digest_directory(path)
    return None if found == artifact.digest else f"{path} was altered: {found[:19]}…, not {artifact.digest[:19]}…"


def verify(artifact: Artifact) -> bool:
    """Whether a local artifact's bytes are exactly those that were recorded."""
    return fault(artifact) is None
