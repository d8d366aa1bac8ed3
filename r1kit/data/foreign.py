"""Rows of other people's shapes against other people's benchmarks: which fields are texts, and what a row is called."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1kit.data.config import SourceEntry
from r1kit.data.decontaminate import texts_of
from r1kit.data.fetch import raw_file
from r1kit.data.files import records
from r1kit.data.overlap import Held, Overlap, OverlapIndex
from r1kit.data.records import BadRow, Placed, Record
from r1kit.data.source import Source

_ID_FIELDS = ("id", "task_id", "unique_id", "uid", "question_id", "instance_id", "idx")
_NO_TEXTS = frozenset(
    (*_ID_FIELDS, "source", "licence", "license", "language", "url", "split", "type", "level", "subject", "difficulty")
)
_ANSWERS = frozenset(("answer", "target", "label", "gold", "final_answer", "entry_point", "verifier", "meta"))
_MIN_HELD_WORDS = 4
"""A benchmark's text with fewer words, as `18` or `Yes.`, is no sign of anything."""


def name_of(record: Record, file: Path) -> str:
    """What its file calls a row, else the file's name and the row's number."""
    for field in _ID_FIELDS:
        value = record.values.get(field)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value):
            return str(value)
    return f"{file.name}:{record.number}"


def texts(values: Mapping[str, Any], fields: Iterable[str] = ()) -> dict[str, str]:
    """All texts of a row by their place (`messages[0].content`); of these fields only, where any are named."""
    chosen = tuple(fields)
    wanted = {name: values.get(name) for name in chosen} if chosen else values
    found = (pair for name, value in wanted.items() if chosen or name not in _NO_TEXTS for pair in _within(name, value))
    return {place: text for place, text in found if text.strip()}


def held(file: Path, fields: Iterable[str] = ()) -> Iterator[Held]:
    """The texts of a benchmark's file.

    Raises:
        ValueError: for a row that cannot be read, because nothing must slip through unseen.
    """
    chosen = tuple(fields)
    for record in records(file):
        if isinstance(record, BadRow):
            raise ValueError(f"{record.file}, row {record.row}: {record.reason}; mend the benchmark's file first")
        for place, text in texts(record.values, chosen).items():
            if chosen or (place not in _ANSWERS and len(text.split()) >= _MIN_HELD_WORDS):
                yield Held(name_of(record, file), place, text)


def _within(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if name != "role":
                yield from _within(f"{place}.{name}", item)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _within(f"{place}[{number}]", item)


@dataclass(frozen=True)
class Sorted:
    """A row, and whether it may be trained on."""

    file: str
    number: int
    id: str
    values: Mapping[str, Any]
    overlap: Overlap | None = None
    fault: BadRow | None = None
    """Why it could not be read."""

    def proof(self) -> dict[str, Any]:
        """Why it may not be trained on, as the quarantine has it."""
        place = {"file": self.file, "row": self.number, "id": self.id}
        if self.fault is not None:
            return place | {"rule": self.fault.rule, "value": self.fault.value, "reason": self.fault.reason}
        assert self.overlap is not None, "a clean row has no proof"
        return place | {"rule": "contaminated", **asdict(self.overlap)}


def sort_out(file: Path, index: OverlapIndex, fields: Iterable[str] = (), whole: bool = False) -> Iterator[Sorted]:
    """Every row of a file, with what it repeats of the benchmarks.

    Raises:
        ValueError: where none of the named fields is in a row.
    """
    chosen = tuple(fields)
    for record in records(file):
        if isinstance(record, BadRow):
            yield Sorted(record.file, record.row, f"{file.name}:{record.row}", {}, fault=record)
            continue
        if chosen and not any(name in record.values for name in chosen):
            there = ", ".join(map(str, record.values)) or "none"
            raise ValueError(f"{file}, row {record.number}: no field {' or '.join(chosen)}; its fields are {there}")
        found = index.find(texts(record.values, chosen), whole)
        yield Sorted(str(file), record.number, name_of(record, file), record.values, found)


def built_in(source: Source, mirror: str, cache: Path) -> Iterator[Held]:
    """The texts of a built-in data set that is a benchmark.

    Raises:
        ValueError: where it is none, or nothing pins its bytes.
    """
    if "benchmarks" not in source.makers:
        raise ValueError(f"{source.name} is no benchmark; name a file, or one of the sources that are held out")
    for file in source.raw_files:
        if not file.sha256:
            raise ValueError(f"nothing pins the bytes of {source.name}; fetch {file.url} and name that file instead")
    paths = [raw_file(file, mirror, cache) for file in source.raw_files]
    for item in source.rows("benchmarks", SourceEntry(source=source.name, limit=None), paths, 0):
        if isinstance(item, Placed):
            for place, text in texts_of(item.row).items():
                if text:
                    yield Held(item.row.id, place, text)
