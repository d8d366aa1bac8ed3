"""The Python packages a model was made with: the lock that its steps name, found again and read."""

import functools
import importlib.metadata
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tasks.artifacts import digest_bytes
from tasks.workspace import REPOSITORY

LOCK = "requirements.lock"
_COMMIT = re.compile(r"^[0-9a-f]{7,64}$")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Package:
    """A locked package."""

    name: str
    version: str
    hashes: tuple[str, ...]
    """sha256 of its files, in hexadecimal, where the lock has them."""
    licence: str
    """As the installed package of exactly this version states it; empty where it is not installed or says nothing."""


@dataclass(frozen=True)
class Lock:
    """A lock that steps of the lineage ran under."""

    digest: str
    packages: tuple[Package, ...] | None
    """None where no file with this digest is found."""


def locks_of(environments: Iterable[Mapping[str, str]]) -> tuple[Lock, ...]:
    """The locks that the environments of ledger entries name, each once, in their order.

    A lock is looked for in the repository as it lies here, then at the commit that the entry names; either counts only
    if its sha256 is the recorded one.
    """
    found: dict[str, Lock] = {}
    for environment in environments:
        digest = environment.get("lock_digest", "")
        if digest and (digest not in found or found[digest].packages is None):
            content = _content(digest, environment.get("commit", ""))
            found[digest] = Lock(digest, None if content is None else tuple(read_lock(content)))
    return tuple(found.values())


def read_lock(text: str) -> Iterator[Package]:
    """The pinned packages of a requirements file; lines that pin nothing are passed over."""
    for line in text.replace("\\\n", " ").splitlines():
        wanted = re.split(r"\s+--|\s#", line.strip(), maxsplit=1)[0]
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement:
            continue
        pins = [clause.version for clause in requirement.specifier if clause.operator == "=="]
        if len(pins) == 1:
            name = canonicalize_name(requirement.name)
            yield Package(name, pins[0], tuple(_HASH.findall(line)), _licence(name, pins[0]))


def _content(digest: str, commit: str) -> str | None:
    """The lock with this digest, from the working tree or from a commit."""
    here = REPOSITORY / LOCK
    if here.is_file() and digest_bytes(here.read_bytes()) == digest:
        return here.read_text()
    commit = commit.removesuffix("+changes")
    if not _COMMIT.match(commit):
        return None
    command = ["git", "show", f"{commit}:{LOCK}"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode() if done.returncode == 0 and digest_bytes(done.stdout) == digest else None


@functools.cache
def _licence(name: str, version: str) -> str:
    """What the installed package says of its licence, if it is the same version."""
    try:
        installed = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    if installed.version.partition("+")[0] != version.partition("+")[0]:
        return ""
    metadata = installed.metadata  # read anew at every access
    stated = [line for field in ("License-Expression", "License") for line in metadata.get_all(field) or []]
    classes = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or [] if "License ::" in c]
    fitting = (s.strip() for s in (*stated, " AND ".join(c for c in classes if c != "OSI Approved")))
    return next((s for s in fitting if s and len(s) <= _LONGEST_NAME and "\n" not in s and s != "UNKNOWN"), "")
