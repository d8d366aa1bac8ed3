"""What the gates in front of an environment look at, and what each of them says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.ledger import Ledger, Recorded
from tasks.lineage import Environment, ResolvedModel, producer
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from r1kit.promotion import PromotionConfig, Rules


@dataclass(frozen=True)
class Gate:
    """One gate's verdict."""

    name: str
    passed: bool
    figure: str
    """What was found."""
    limit: str = ""
    """What was asked."""
    advice: str = ""
    """The way out."""

    def __str__(self) -> str:
        limit = f", wanted {self.limit}" if self.limit else ""
        return f"{self.name}: {self.figure}{limit}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Question:
    """May this model enter this environment?"""

    workspace: Workspace
    ledger: Ledger
    entries: Sequence[Recorded]
    name: str
    model: ResolvedModel
    to: Environment
    holder: ResolvedModel | None
    """Who has the environment now."""
    settings: "PromotionConfig"
    approvers: Path

    @property
    def maker(self) -> Recorded | None:
        """The stage that made the model."""
        return producer(self.entries, self.model.artifact.digest, self.model.run)

    @property
    def rules(self) -> "Rules":
        """The limits for this environment and the stage that made the model."""
        return self.settings.rules(self.to, self.maker.entry.job if self.maker else "")
