"""Anybody's data file through the gates: the same rules as the flow's own, and every row at fault told."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r1kit.config import ValidateConfig
from r1kit.data.files import records
from r1kit.data.foreign import name_of
from r1kit.data.records import BadRow, Record, shown
from r1kit.rewards import VerifierPool
from r1kit.rows import Row, table_of
from r1kit.settings import suggest
from tasks.data_rules import ROW_CLASSES, Surroundings
from tasks.expectations import Outcome
from tasks.seen import TokenCounter, estimated_tokens
from tasks.slices import SLICE_ROWS, Examination, GoldSample
from tasks.tallies import SourceTally
from tasks.validate import VERIFIED_KINDS, gold_outcomes

FORMAT = "r1kit check of data 1"
ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": ("question", "problem", "instruction", "input"),
    "response": ("completion", "output", "answer"),
    "licence": ("license",),
    "tests": ("test",),
}
"""Field of a row → what other people call it."""
_KINDS = {"pretrain": "pretrain", "chains": "chain", "instructions": "instruction"}

_NUM_SHOWN = 3

Sink = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Question:
    """What is asked about a file."""

    file: Path
    kind: str
    config: ValidateConfig
    licences: tuple[str, ...] = ()
    """Allowed ones; empty means any."""
    count_tokens: TokenCounter = estimated_tokens


def check(
    question: Question, pool: VerifierPool, quarantine: Sink, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """The verdict on a file, as JSON.

    Args:
        quarantine: takes each row at fault with file, row, id, rule, value, limit and advice, a rule at a time.

    Raises:
        ValueError: an unknown kind, or a file that cannot be read at all.
        RuntimeError: a check itself is broken, so nothing is known of the data.
    """
    if question.kind not in ROW_CLASSES:
        raise ValueError(f"--kind {question.kind}: {suggest(question.kind, ROW_CLASSES)}")
    rows = _Rows(question, quarantine)
    examination = Examination(rows.surroundings, rows.fallen)
    sample = GoldSample(question.config.verify_rows)
    row_class, stream = ROW_CLASSES[question.kind], iter(rows)
    while (batch := list(islice(stream, SLICE_ROWS))) or not examination.seen.rows:
        table = table_of(batch, row_class)
        if question.kind in VERIFIED_KINDS:
            sample.add(question.kind, table, examination.seen.rows + 1)
        examination.add(table)
        say(f"{examination.seen.rows:,} rows")
        if not batch:
            break
    outcomes = examination.finish()
    chosen = list(sample.chosen(VERIFIED_KINDS))
    for outcome in gold_outcomes(chosen, pool).values():
        rows.fallen(outcome)
        outcomes.append(outcome)
    _refuse_broken(outcomes)
    share = rows.num_bad / max(1, rows.num_bad + examination.seen.rows)
    return {
        "format": FORMAT,
        "file": str(question.file),
        "kind": question.kind,
        "success": all(outcome.success for outcome in outcomes) and share <= question.config.max_quarantine_share,
        "rows": rows.num_bad + examination.seen.rows,
        "unreadable": rows.num_bad,
        "first_unreadable": rows.first_bad,
        "max_unreadable_share": question.config.max_quarantine_share,
        "verified": len(chosen),
        "checks": [outcome.to_json() for outcome in outcomes],
        "fallen": dict(rows.counts.most_common()),
        "distributions": examination.seen.distributions(),
    }


class _Rows:
    """A file's rows as typed rows; those that are none go into quarantine."""

    def __init__(self, question: Question, quarantine: Sink) -> None:
        self._question, self._quarantine = question, quarantine
        self._numbers: list[int] = []
        self._sources: dict[str, SourceTally] = {}
        self.num_bad = 0
        self.first_bad: list[str] = []
        self.counts: Counter[str] = Counter()
        self.surroundings = Surroundings(
            kind=question.kind,
            config=question.config,
            wanted=False,
            allowed_licences=question.licences,
            benchmarks={},
            sources=self._sources,
            entries=(),
            count_tokens=question.count_tokens,
        )

    def __iter__(self) -> Iterator[Row]:
        row_class = ROW_CLASSES[self._question.kind]
        for record in records(self._question.file):
            bad = record if isinstance(record, BadRow) else None
            if isinstance(record, Record):
                try:
                    row = row_class.model_validate(self._values(record, row_class))
                    self._sources.setdefault(row.source, SourceTally(row.licence, False, 1, 1, 0, 0, 0))
                    self._numbers.append(record.number)
                    yield row
                except ValidationError as error:
                    bad = _bad_row(record, error, self._question.file)
            if bad is not None:
                self._tell(bad.row, "", f"the row fits its kind ({bad.field or bad.rule})", bad.value, bad.reason, "")
                self.num_bad += 1
                if len(self.first_bad) < _NUM_SHOWN:
                    self.first_bad.append(f"{bad.file}, row {bad.row}: {bad.reason}")

    def fallen(self, outcome: Outcome) -> None:
        """Tell of all rows that a rule does not let through."""
        for example in outcome.examples:
            place = example["row"]
            number = self._numbers[place - 1] if place and place <= len(self._numbers) else 0
            self._tell(number, example["id"], outcome.rule.name, example["value"], outcome.rule.limit,
                       outcome.rule.advice)  # fmt: skip

    def _tell(self, row: int, id_: str, rule: str, value: Any, limit: str, advice: str) -> None:
        self.counts[rule] += 1
        place = {"file": str(self._question.file), "row": row, "id": id_}
        self._quarantine(place | {"rule": rule, "value": value, "limit": limit, "advice": advice})

    def _values(self, record: Record, row_class: type[Row]) -> dict[str, Any]:
        """The row's own fields, other people's names for them, and what goes without saying."""
        given = {name: value for name, value in record.values.items() if value is not None}
        values = {name: given[name] for name in row_class.model_fields if name in given}
        for name, others in ALIASES.items():
            if name in row_class.model_fields and name not in values:
                values |= next(({name: given[other]} for other in others if other in given), {})
        values["id"] = str(values.get("id", name_of(record, self._question.file)))
        plain = {"source": self._question.file.name.split(".")[0], "licence": "not stated"}
        if "answer" in row_class.model_fields:
            values["answer"] = str(values.get("answer", ""))
            plain["verifier"] = "code" if values.get("tests") else "math" if values["answer"] else "none"
            plain |= {"benchmark": plain["source"]} if self._question.kind == "benchmarks" else {}
        if self._question.kind in _KINDS:
            plain["kind"] = _KINDS[self._question.kind]
        if self._question.kind == "preferences":
            plain["route"] = "helpful"
        return plain | values


def _bad_row(record: Record, error: ValidationError, file: Path) -> BadRow:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    there = ", ".join(map(str, record.values)) or "none"
    missing = first["type"] == "missing"
    reason = f"{field} is missing; the row's fields are {there}" if missing else f"{field}: {first['msg']}"
    return BadRow(str(file), record.number, field, "" if missing else shown(first["input"]), reason)


def _refuse_broken(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.error:
            raise RuntimeError(
                f"the validation itself is broken, so nothing is known of the data: the check {outcome.rule.name!r} "
                f"ended with {outcome.error}"
            )
