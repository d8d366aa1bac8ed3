"""DVC behind one small module: what the prepared data sets are pinned to, and pinning them."""

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tasks.workspace import REPOSITORY, Workspace

STAGE = "data"
"""The one stage group of dvc.yaml: `data@tiny`, `data@small`."""
LOCK_ATTEMPTS = 20
"""DVC waits three seconds for its lock, each time it is asked."""


def data_dir(profile: str, root: Path = REPOSITORY) -> Path:
    """Where a profile's prepared files lie."""
    return root / "data" / profile


def check_profile(profile: str, root: Path = REPOSITORY) -> None:
    """Raise ValueError where dvc.yaml has no data stage for the profile."""
    path = root / "dvc.yaml"
    try:
        known = yaml.safe_load(path.read_text())["stages"][STAGE]["foreach"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} has no stage {STAGE} with a list of profiles ({error}); restore it from git"
        ) from None
    if profile not in known:
        raise ValueError(
            f"{path}: stages.{STAGE}.foreach does not name profile {profile!r} (it has {', '.join(map(str, known))}); "
            "add it, so that its data can be pinned"
        )


@dataclass(frozen=True)
class Pin:
    """What dvc.lock says of a file."""

    md5: str
    size_bytes: int


def pins(profile: str, root: Path = REPOSITORY) -> dict[str, str]:
    """File name → md5 that dvc.lock pins it to; empty where nothing is pinned yet."""
    return {Path(path).name: pin.md5 for path, pin in pinned_files(profile, root).items()}


def pinned_files(profile: str, root: Path = REPOSITORY) -> dict[str, Pin]:
    """Path from the root → its pin, of a profile's prepared files; empty where nothing is pinned yet.

    Raises ValueError where dvc.lock cannot be read.
    """
    try:
        locked = yaml.safe_load((root / "dvc.lock").read_text()) or {}
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{root / 'dvc.lock'} cannot be read: {error}; restore it from git") from None
    stage = (locked.get("stages") or {}).get(f"{STAGE}@{profile}") or {}
    try:
        return {
            str(out["path"]): Pin(str(out.get("md5", "")), int(out.get("size", 0))) for out in stage.get("outs", [])
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{root / 'dvc.lock'} cannot be read: {error!r}; restore it from git") from None


def pin_faults(files: Iterable[Path], profile: str, root: Path = REPOSITORY) -> list[str]:
    """Why prepared files are not the pinned ones, one sentence each."""
    pinned = pins(profile, root)
    return [wrong for path in files if (wrong := _fault(path, pinned.get(path.name, "")))]


def _fault(path: Path, pinned: str) -> str:
    if not pinned:
        return f"{path} is not pinned in dvc.lock"
    found = md5_of(path)
    return "" if found == pinned else f"{path} has md5 {found[:12]}…, but dvc.lock pins {pinned[:12]}…"


def md5_of(path: Path) -> str:
    """DVC's own name for a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def pin(profile: str, workspace: Workspace, root: Path = REPOSITORY) -> None:
    """Pin a profile's files as they are, and keep their bytes in DVC's cache.

    Raises ValueError where another process holds DVC's lock for a minute.
    """
    with _repository(workspace, root) as repo:
        from dvc.lock import LockError

        for attempt in range(1, LOCK_ATTEMPTS + 1):
            try:
                repo.commit(f"{STAGE}@{profile}", force=True)
                return
            except LockError:
                if attempt == LOCK_ATTEMPTS:
                    raise ValueError(
                        f"another DVC command holds the lock of {root}; run again when it is done"
                    ) from None
                time.sleep(0.2)


@contextlib.contextmanager
def _repository(workspace: Workspace, root: Path) -> Iterator[Any]:
    """DVC's view of the repository: quiet, without analytics, its site cache in the workspace."""
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    os.environ.setdefault("DVC_SITE_CACHE_DIR", str(workspace.cache_dir / "dvc"))
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    logging.getLogger("dvc_objects").setLevel(logging.ERROR)
    try:
        # DVC's run cache looks for its own files below the working directory, wherever the repository is.
        with contextlib.chdir(root), Repo(str(root)) as repo:
            yield repo
    except DvcException as error:
        raise ValueError(f"DVC cannot pin the data of {root}: {error}") from error
