"""Rows through their rules slice by slice, in bounded memory: the same verdict however they are sliced."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tasks.data_rules import (
    ROW_CLASSES,
    Examined,
    Surroundings,
    columns_examined,
    rows_examined,
    sources_examined,
    whole_examined,
)
from tasks.expectations import Outcome, examine
from tasks.seen import Seen

if TYPE_CHECKING:
    import pyarrow as pa

SLICE_ROWS = 8_192
Fallen = Callable[[Outcome], None]
"""Takes what became of a rule on a slice, with every row at fault."""


class Examination:
    """The rules on one kind of rows."""

    def __init__(self, around: Surroundings, fallen: Fallen = lambda outcome: None) -> None:
        self.around = around
        self.seen = Seen()
        self._fallen = fallen
        self._outcomes: dict[str, Outcome] = {}
        self._readable = True

    def add(self, table: "pa.Table") -> None:
        """Examine more rows. Columns come first: of rows with other columns nothing else can be asked."""
        if not self._outcomes:
            self._take(columns_examined(table, ROW_CLASSES[self.around.kind]))
            self._readable = all(outcome.success for outcome in self._outcomes.values())
            self._take(sources_examined(self.around))
        if self._readable:
            self._take(rows_examined(table, self.around, self.seen))

    def finish(self) -> list[Outcome]:
        """What became of every rule, those on all rows together last."""
        if self._readable:
            for examined in whole_examined(self.around, self.seen):
                self._take(examined)
        return list(self._outcomes.values())

    def _take(self, examined: Examined) -> None:
        for outcome in examine(examined.frame, examined.rules):
            self._fallen(outcome)
            before = self._outcomes.get(outcome.rule.name)
            self._outcomes[outcome.rule.name] = outcome if before is None else before + outcome


class GoldSample:
    """Rows whose gold answer is verified: of every source those whose ids have the least hashes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._groups: dict[tuple[str, str], list[tuple[str, int, dict[str, Any]]]] = {}

    def add(self, kind: str, table: "pa.Table", first_row: int) -> None:
        """Take the rows of a slice; `first_row` is the number of its first one."""
        names = (table.column(name).to_pylist() for name in ("id", "source", "verifier"))
        for place, (id_, source, verifier) in enumerate(zip(*names, strict=True)):
            if verifier != "none" and self._limit:
                group = self._groups.setdefault((kind, source), [])
                order = hashlib.sha256(id_.encode()).hexdigest()
                if len(group) < self._limit or order < group[-1][0]:
                    group.append((order, first_row + place, table.slice(place, 1).to_pylist()[0]))
                    group.sort(key=lambda item: item[:2])
                    del group[self._limit :]

    def chosen(self, kinds: Sequence[str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
        """Kind, number and row of those to verify, the sources in turn; in the order of their files."""
        turns = [
            (turn, order, kind, number, row)
            for (kind, _), rows in self._groups.items()
            if kind in kinds
            for turn, (order, number, row) in enumerate(rows)
        ]
        first = sorted(turns, key=lambda item: item[:4])[: self._limit]
        for _, _, kind, number, row in sorted(first, key=lambda item: (kinds.index(item[2]), item[3])):
            yield kind, number, row
