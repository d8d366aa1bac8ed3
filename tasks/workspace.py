"""Where everything that a run makes is kept: one directory, whose removal is a full reset."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

SETTINGS_FILE = "resolved.yaml"
"""In a run's folder, and in the evidence of what it registered: all its settings."""
MIN_FREE_BYTES = 500 * 2**20
"""Less than this and a run does not start."""


@dataclass(frozen=True)
class Workspace:
    """The directory `.r1` at the repository root, or the one that R1_HOME names."""

    root: Path

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking and registry address: the environment's server, else SQLite."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts_dir(self) -> Path:
        """Artifacts of MLflow's runs and of the environments."""
        return self.root / "artifacts"

    @property
    def ledger_dir(self) -> Path:
        """The ledger where R1_LEDGER names no other place: one file an entry."""
        return self.root / "ledger"

    @property
    def ledger_address(self) -> str:
        """Where the ledger lies: the folder or `s3://bucket/prefix` that R1_LEDGER names, else `ledger_dir`."""
        named = os.environ.get("R1_LEDGER")
        if not named:
            return str(self.ledger_dir)
        return named if "://" in named else str(Path(named).expanduser().resolve())

    @property
    def ledger_seen(self) -> Path:
        """How far this workspace has seen that ledger: an older or another one in its place is noticed."""
        return self.root / "ledger-seen" / f"{self._ledger_name}.json"

    @property
    def ledger_index(self) -> Path:
        """What makes questions to that ledger quick; made anew where it is missing."""
        return self.cache_dir / "ledger" / f"{self._ledger_name}.sqlite"

    @property
    def _ledger_name(self) -> str:
        address = self.ledger_address.rstrip("/")
        return "own" if address == str(self.ledger_dir) else hashlib.sha256(address.encode()).hexdigest()[:12]

    @property
    def keys_dir(self) -> Path:
        """The workspace's own signing key."""
        return self.root / "keys"

    @property
    def runs_dir(self) -> Path:
        """Summaries and reports, one directory a run."""
        return self.root / "runs"

    @property
    def work_dir(self) -> Path:
        """Checkpoints of unfinished stages."""
        return self.root / "work"

    @property
    def stages_dir(self) -> Path:
        """Curves and details of stages, by key."""
        return self.root / "stages"

    @property
    def prefect_dir(self) -> Path:
        """Prefect's home: its database and the results of finished stages."""
        return self.root / "prefect"

    @property
    def cache_dir(self) -> Path:
        """What can be fetched or made again."""
        return self.root / "cache"

    @property
    def lock(self) -> Path:
        """Held by the one run of this workspace."""
        return self.root / "lock"


def find_workspace() -> Workspace:
    """The workspace of this process: R1_HOME, else `.r1` at the root of the repository."""
    home = os.environ.get("R1_HOME")
    return Workspace(Path(home).expanduser().resolve() if home else REPOSITORY / ".r1")


def keep_caches_within(workspace: Workspace) -> None:
    """Have libraries, here and in processes started later, keep in the workspace what they would put into HOME."""
    os.environ.setdefault("MPLCONFIGDIR", str(workspace.cache_dir / "matplotlib"))  # it comes with reasoning-gym


@contextlib.contextmanager
def hold(workspace: Workspace) -> Iterator[None]:
    """Have the workspace for oneself. The kernel lets go of it when the process ends, however it ends.

    Raises ValueError, one sentence, where it cannot be written, has no space, or another run holds it.
    """
    check_writable(workspace)
    with workspace.lock.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = stream.read().strip() or "another run"
            raise ValueError(
                f"{holder} is at work in {workspace.root}; wait for it to end, "
                "or set R1_HOME to another directory for this run"
            ) from None
        stream.truncate(0)
        stream.write(f"a run (process {os.getpid()}, since {time.strftime('%H:%M:%S')})")
        stream.flush()
        yield


def is_held(workspace: Workspace) -> bool:
    """Whether a run is at work there now."""
    if not workspace.lock.is_file():
        return False
    with workspace.lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check_writable(workspace: Workspace) -> None:
    """Raise ValueError where nothing can be written to the workspace, or too little."""
    probe = workspace.root / f".probe.{os.getpid()}"
    try:
        workspace.root.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"r1kit")
        probe.unlink()
    except OSError as error:
        raise ValueError(explain(error, workspace) or f"{workspace.root} cannot be used: {error}") from None
    free = shutil.disk_usage(workspace.root).free
    if free < MIN_FREE_BYTES:
        raise ValueError(
            f"{workspace.root} has only {free / 2**20:.0f} MiB left on its disk and a run needs at least "
            f"{MIN_FREE_BYTES / 2**20:.0f}; free some, or set R1_HOME to a directory on another disk"
        )


def explain(error: OSError, workspace: Workspace) -> str | None:
    """One sentence for an error of the disk; None for any other."""
    where = error.filename or workspace.root
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return (
                f"the disk is full ({where}): free some space and run the same command again; "
                "finished stages and checkpoints are kept"
            )
        case errno.EROFS | errno.EACCES | errno.EPERM:
            return (
                f"{where} cannot be written ({os.strerror(error.errno)}); make it writable, "
                "or set R1_HOME to a directory that is"
            )
        case errno.ENOTDIR | errno.EEXIST:
            return f"{where} is in the way: it is not a directory; move it, or set R1_HOME to another place"
    return None
