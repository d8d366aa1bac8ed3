"""What became of the rows of each source, by the data stage's own account."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TALLIED = ("rows_read", "rows_kept", "quarantined", "contaminated", "duplicates")
_COUNTED_RULES = ("json", "schema", "unverifiable")
"""Reasons that count towards the quarantined share; the others are duplicates, overlaps and licences."""


@dataclass(frozen=True)
class SourceTally:
    """What became of the rows of one source."""

    licence: str
    procedural: bool
    """Made, not read: its prompts follow templates."""
    read: int
    kept: int
    quarantined: int
    contaminated: int
    duplicates: int

    @property
    def quarantine_share(self) -> float:
        """Quarantined rows among those read."""
        return self.quarantined / max(1, self.read, self.quarantined)


def tallies(manifest: Mapping[str, Any], quarantine: Sequence[Mapping[str, Any]], kind: str) -> dict[str, SourceTally]:
    """Source → its counts, for one kind of rows. Of manifest and quarantine file, the one with more rows counts."""
    lines = Counter(
        str(line.get("source"))
        for line in quarantine
        if line.get("kind") == kind and line.get("rule") in _COUNTED_RULES
    )
    found: dict[str, SourceTally] = {}
    stated = [source for source in manifest["sources"] if source["kind"] == kind]
    for name in sorted({source["source"] for source in stated} | set(lines)):
        own = [source for source in stated if source["source"] == name]
        total = {field: sum(int(source.get(field, 0)) for source in own) for field in _TALLIED}
        found[name] = SourceTally(
            licence=", ".join(sorted({str(source.get("licence", "")) for source in own})),
            procedural=not any(source.get("files") for source in own),
            read=total["rows_read"],
            kept=total["rows_kept"],
            quarantined=max(total["quarantined"], lines[name]),
            contaminated=total["contaminated"],
            duplicates=total["duplicates"],
        )
    return found
