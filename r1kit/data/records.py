"""Reading raw files record by record, and turning records into typed rows. What does not fit is set aside."""

import csv
import gzip
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from r1kit.rows import PreferencePair, Problem, SftRow

AnyRow = Problem | SftRow | PreferencePair
"""What the six kinds of data sets are made of."""
Rule = Literal["json", "schema", "unverifiable", "survivor", "duplicate", "contaminated", "licence"]
"""Why a row is set aside. The first three say that the row is faulty, the others that it is not wanted here;
a survivor is a program for debugging that passes its tests as it is."""

HELD_OUT_ONLY = '{"held_out_only": true}'
"""Of a benchmark's row that no verifier can score: training rows are held against it, and nothing more."""

_SHOWN_CHARS = 200
_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Placed:
    """A typed row, and where it was read."""

    row: AnyRow
    file: str
    """Name of the raw file, or of the source where rows are made."""
    number: int
    """Its number in the file, from 1."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    file: str
    """Name of the raw file, or of the source where rows are made."""
    row: int
    """Its number in the file, from 1: the line of a JSONL file, the item of a JSON list."""
    field: str
    """Empty where the row as a whole is at fault."""
    value: str
    """What stands there, shortened."""
    reason: str
    rule: Rule = "schema"


class BadField(Exception):
    """A field of a record does not fit; caught where the record is converted."""

    def __init__(self, field: str, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.field, self.value, self.reason = field, value, reason


@dataclass(frozen=True)
class Record:
    """One item of a raw file."""

    number: int
    """From 1."""
    values: Any

    def get(self, field: str) -> Any:
        """A field, whatever it holds. Raises BadField where it is missing."""
        if not isinstance(self.values, Mapping):
            raise BadField("", self.values, "is not a JSON object")
        if field not in self.values:
            raise BadField(field, None, f"lacks the field {field}")
        return self.values[field]

    def text(self, field: str, *, empty: bool = False) -> str:
        """A field that holds text. Raises BadField where it does not, or is blank and may not be."""
        value = self.get(field)
        if not isinstance(value, str):
            raise BadField(field, value, f"{field} is not text")
        if not empty and not value.strip():
            raise BadField(field, value, f"{field} is empty")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadField(field, value, f"{field} holds half of a surrogate pair") from None
        return value

    def items(self, field: str) -> list[Any]:
        """A field that holds a list with something in it. Raises BadField where it does not."""
        value = self.get(field)
        if not isinstance(value, list) or not value:
            raise BadField(field, value, f"{field} is not a list with items")
        return value


@dataclass(frozen=True)
class Context:
    """What a row is told of its surroundings."""

    source: str
    licence: str
    kind: str
    benchmark: str
    """Name for held-out rows."""
    file: str
    options: Mapping[str, str | float]

    def common(self, name: object) -> dict[str, Any]:
        """The columns that every row has."""
        return {"id": f"{self.source}/{name}", "source": self.source, "licence": self.licence}

    def held_out(self) -> str:
        """The benchmark's name for a row of the benchmarks, else empty."""
        return self.benchmark if self.kind == "benchmarks" else ""

    def split(self, prompt: str) -> Literal["train", "heldout"]:
        """Whether a preference pair is held out: a function of its prompt, so that no prompt is on both sides."""
        return split(prompt, float(self.options["heldout_share"]))


def split(prompt: str, heldout_share: float) -> Literal["train", "heldout"]:
    """The side that a prompt is on, wherever it stands."""
    place = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
    return "heldout" if place < heldout_share else "train"


Reader = Callable[[Path, str], Iterator[Record | BadRow]]
"""Path, name for messages → records."""


def jsonl(path: Path, name: str) -> Iterator[Record | BadRow]:
    """One JSON value a line, gzip or not; blank lines are skipped."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _parse(line, number, name)


def json_list(path: Path, name: str, key: str = "") -> Iterator[Record | BadRow]:
    """A file that is one JSON list, or an object that holds the list under `key`.

    Raises:
        ValueError: where the file is neither.
    """
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"the data file {name} is not JSON ({error}); fetch it again") from None
    items = values.get(key) if key and isinstance(values, dict) else values
    if not isinstance(items, list):
        where = f"no list under {key!r}" if key else "not a list"
        raise ValueError(f"the data file {name} holds {where}; is it the right file?")
    for number, item in enumerate(items, 1):
        yield Record(number, item)


def parquet(path: Path, name: str) -> Iterator[Record | BadRow]:
    """The rows of a Parquet file, some thousand in memory at a time.

    Raises:
        ValueError: where the file is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(path).iter_batches(_BATCH_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Record(number, values)
    except (pa.ArrowException, OSError) as error:
        whole = f"{name} is not whole Parquet, after row {number}"
        raise ValueError(f"{whole}: {error}; fetch or write it again") from None


def csv_rows(path: Path, name: str) -> Iterator[Record | BadRow]:
    """The rows of a CSV file whose first line names the columns. They are numbered by rows: texts have line ends."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        for number, values in enumerate(csv.DictReader(stream), 1):
            if None in values or None in values.values():
                yield BadRow(name, number, "", shown(list(values.values())), "has not a cell for each column")
            else:
                yield Record(number, values)


def convert(
    records: Iterable[Record | BadRow], make: Callable[[Record, Context], AnyRow | None], context: Context
) -> Iterator[Placed | BadRow]:
    """Typed rows from records; a record that does not fit becomes a BadRow."""
    for record in records:
        if isinstance(record, BadRow):
            yield record
            continue
        try:
            row = make(record, context)
        except BadField as error:
            yield BadRow(context.file, record.number, error.field, shown(error.value), error.reason)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            yield BadRow(context.file, record.number, field, shown(first["input"]), first["msg"])
        else:
            if row is not None:
                yield Placed(row, context.file, record.number)


def shown(value: Any) -> str:
    """A value as the quarantine file shows it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode(errors="replace").decode()
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _parse(line: bytes, number: int, name: str) -> Record | BadRow:
    try:
        return Record(number, json.loads(line))
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8, and brackets without end
        return BadRow(name, number, "", shown(line.decode(errors="replace").strip()), f"is not JSON: {error}", "json")
