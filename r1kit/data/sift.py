"""What keeps a row out of a prepared file: faults, a repeated prompt, a benchmark's text, a licence."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from r1kit.chat import parse
from r1kit.data.config import Kind
from r1kit.data.decontaminate import BenchmarkIndex, texts_of
from r1kit.data.normalise import normalise
from r1kit.data.records import AnyRow, BadRow, Placed, Rule, shown
from r1kit.rewards import SURVIVES, VerifierPool, check_gold
from r1kit.rows import PreferencePair, Problem, SftRow

FAULTS: tuple[Rule, ...] = ("json", "schema", "unverifiable")
"""Rules that a row breaks by a fault of its own: these count towards the share of quarantined rows."""
_BATCH_ROWS = 512


@dataclass(frozen=True)
class SetAside:
    """A row that was kept out, and why: one line of quarantine.jsonl."""

    kind: Kind
    source: str
    file: str
    """Name of the raw file, or of the source where rows are made."""
    row: int
    """From 1."""
    id: str
    """Empty where it did not become a row."""
    field: str
    value: str
    """What stands there, shortened."""
    reason: str
    rule: Rule


@dataclass
class Sifted:
    """What became of one source's rows."""

    num_kept: int = 0
    set_aside: list[SetAside] = field(default_factory=list)

    @property
    def num_read(self) -> int:
        """Rows looked at: up to the last one that was wanted."""
        return self.num_kept + len(self.set_aside)

    def counts(self) -> Counter[Rule]:
        """Rows set aside, by rule."""
        return Counter(row.rule for row in self.set_aside)

    @property
    def num_faults(self) -> int:
        """Rows with a fault of their own."""
        return sum(self.counts()[rule] for rule in FAULTS)


class Sieve:
    """Sifts the sources of one kind, one after the other: a row that an earlier source gave is a duplicate."""

    def __init__(
        self, kind: Kind, pool: VerifierPool, index: BenchmarkIndex | None = None, licences: tuple[str, ...] = ()
    ) -> None:
        self._kind: Kind = kind
        self._pool = pool
        self._index = index
        self._licences = licences
        self._ids: set[str] = set()
        self._texts: dict[bytes, str] = {}
        """Digest of what a row says → the first row's id."""

    def sift(
        self,
        source: str,
        rows: Iterable[Placed | BadRow],
        result: Sifted,
        limit: int | None = None,
        procedural: bool = False,
    ) -> Iterator[AnyRow]:
        """Rows that pass every check, the first `limit` of them, as they are read.

        Args:
            result: is told what became of the rows.
            procedural: the rows are made from templates. Parts that they share with a benchmark then tell nothing;
                and where they are samples, not problems, repeats are the weights of their distribution and stay.
        """
        for batch in _batches(rows):
            looked_at = [(item, self._fault(item, procedural)) for item in batch]
            reasons = self._unverifiable([item for item, fault in looked_at if fault is None])
            for item, fault in looked_at:
                if limit is not None and result.num_kept >= limit:
                    return
                fault = fault or reasons.get(_place(item)) or self._repeated(item, procedural)
                if fault is None:
                    assert isinstance(item, Placed)
                    self._remember(item.row)
                    result.num_kept += 1
                    yield item.row
                else:
                    name = item.row.id if isinstance(item, Placed) else ""
                    result.set_aside.append(SetAside(self._kind, source, *_place(item), name, *fault))

    def _fault(self, item: Placed | BadRow, procedural: bool) -> tuple[str, str, str, Rule] | None:
        """Field, value, reason and rule of what is wrong with a row, looked at alone."""
        if isinstance(item, BadRow):
            return item.field, item.value, item.reason, item.rule
        row = item.row
        if self._licences and row.licence not in self._licences:
            return "licence", shown(row.licence), "this licence is not among data.allowed_licences", "licence"
        if isinstance(row, SftRow) and row.kind == "chain" and not parse(row.response).well_formed:
            return "response", shown(row.response), "is not one chain and one answer, each in its tags once", "schema"
        if self._index and (found := self._index.overlap(row, whole=procedural)):
            texts = texts_of(row)
            value = texts.get(found.field) or "\n".join(texts.values())
            return found.field, shown(value), f"repeats the benchmark row {found}", "contaminated"
        return None

    def _unverifiable(self, items: list[Placed | BadRow]) -> dict[tuple[str, int], tuple[str, str, str, Rule]]:
        """Faults of problems whose gold answer their own verifier does not accept."""
        problems = [
            (_place(item), item.row)
            for item in items
            if isinstance(item, Placed) and isinstance(item.row, Problem) and item.row.verifier != "none"
        ]
        verdicts = check_gold(self._pool, [problem for _, problem in problems])
        faults: dict[tuple[str, int], tuple[str, str, str, Rule]] = {}
        for (place, problem), verdict in zip(problems, verdicts, strict=True):
            if verdict.score < 1:
                name, value = ("solution", problem.solution) if problem.tests else ("answer", problem.answer)
                if verdict.reason == SURVIVES:
                    faults[place] = "meta", shown(problem.meta), SURVIVES, "survivor"
                else:
                    reason = f"the {problem.verifier} verifier does not accept the gold answer: {verdict.reason}"
                    faults[place] = name, shown(value), reason, "unverifiable"
        return faults

    def _repeated(self, item: Placed | BadRow, procedural: bool) -> tuple[str, str, str, Rule] | None:
        assert isinstance(item, Placed)
        row = item.row
        if row.id in self._ids:
            return "id", row.id, "another row has this id", "duplicate"
        if procedural and not isinstance(row, Problem):
            return None
        if (other := self._texts.get(_identity(row))) is not None:
            return "prompt", shown(row.prompt), f"the same as {other}", "duplicate"
        if isinstance(row, PreferencePair):
            turned = row.model_copy(update={"chosen": row.rejected, "rejected": row.chosen})
            if (other := self._texts.get(_identity(turned))) is not None:
                reason = f"prefers the other one of the two responses that {other} compares"
                return "chosen", shown(row.chosen), reason, "duplicate"
        return None

    def _remember(self, row: AnyRow) -> None:
        self._ids.add(row.id)
        self._texts.setdefault(_identity(row), row.id)


def _place(item: Placed | BadRow) -> tuple[str, int]:
    return item.file, item.row if isinstance(item, BadRow) else item.number


def _identity(row: AnyRow) -> bytes:
    """A digest of what two rows share that are the same: of problems the question, of others what is learned too."""
    texts = (row.prompt,) if isinstance(row, Problem) else texts_of(row).values()
    said = "\x1f".join(normalise(text) for text in texts)
    return hashlib.blake2b(said.encode(errors="replace"), digest_size=16).digest()


def _batches(rows: Iterable[Placed | BadRow]) -> Iterator[list[Placed | BadRow]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, _BATCH_ROWS)):
        yield batch
