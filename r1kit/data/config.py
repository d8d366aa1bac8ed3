"""What a profile says of its data."""

from typing import Literal, get_args

from pydantic import Field

from r1kit.schema import Section

Kind = Literal["pretrain", "problems", "chains", "instructions", "preferences", "benchmarks"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The prepared files, by name."""


class SourceEntry(Section):
    """One source of rows for one kind of data set."""

    source: str
    """Name in the table of sources."""
    limit: int | None = Field(None, gt=0)
    """First so many rows that pass every check (for procedural sources: how many to make)."""
    benchmark: str = ""
    """Name of the benchmark, for held-out problems; empty means the source's name."""
    options: dict[str, str | int | float | bool] = {}
    """What else the source takes."""


class DataConfig(Section):
    """Which rows each prepared file is made of."""

    mirror: str = ""
    """Directory with the raw files; empty means their public addresses."""
    checksums: dict[str, str] = {}
    """Raw file, by its path in a mirror → sha256, for those whose bytes the table of sources does not pin."""
    seed: int = 20260101
    """Seed of procedural sources and of samples."""
    pretrain: tuple[SourceEntry, ...] = ()
    problems: tuple[SourceEntry, ...] = ()
    chains: tuple[SourceEntry, ...] = ()
    instructions: tuple[SourceEntry, ...] = ()
    preferences: tuple[SourceEntry, ...] = ()
    benchmarks: tuple[SourceEntry, ...] = ()
    allowed_licences: tuple[str, ...] = ()
    """Licences the profile accepts; empty means any."""

    def entries(self, kind: Kind) -> tuple[SourceEntry, ...]:
        """The sources of one prepared file."""
        return getattr(self, kind)
