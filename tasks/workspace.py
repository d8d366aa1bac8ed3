"""Where everything that a run makes is kept: one directory, whose removal is a full reset."""

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Workspace:
    """The directory `.r1` at the repository root, or the one that R1_HOME names."""

    root: Path

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking and registry address: the server's where the environment names one, else SQLite."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def artifacts_dir(self) -> Path:
        """Artifacts of MLflow's runs and of the environments."""
        return self.root / "artifacts"

    @property
    def ledger_dir(self) -> Path:
        """One file an entry."""
        return self.root / "ledger"

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
