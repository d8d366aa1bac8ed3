"""What a source of rows is: raw files with their checksums, and functions from records to typed rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from r1kit.data.config import Kind, SourceEntry
from r1kit.data.normalise import normalise
from r1kit.data.records import AnyRow, BadRow, Context, Placed, Reader, Record, convert, jsonl

Make = Callable[[Record, Context], AnyRow | None]
"""A record to its row; None where it belongs to another split."""
Generate = Callable[[int, int, SourceEntry], Iterator[AnyRow]]
"""Seed, how many, entry → rows."""


@dataclass(frozen=True)
class RawFile:
    """A file as its origin has it."""

    path: str
    """Where it lies in a mirror directory, for example `math/gsm8k_train.jsonl`."""
    url: str
    """Public address; `package:NAME/PATH` for a file of an installed package."""
    sha256: str
    """Empty where the table does not know it: then data.checksums must."""


def hub(path: str, repository: str, origin: str) -> RawFile:
    """A file of a public data set on Hugging Face. Its bytes may change there, so the reader pins them."""
    return RawFile(path, f"https://huggingface.co/datasets/{repository}/resolve/main/{origin}", "")


def github(path: str, repository: str, commit: str, origin: str, sha256: str) -> RawFile:
    """A file of a public GitHub repository at a full commit hash."""
    return RawFile(path, f"https://raw.githubusercontent.com/{repository}/{commit}/{origin}", sha256)


@dataclass(frozen=True)
class Source:
    """A named source: one entry of the table."""

    name: str
    licence: str
    """SPDX identifier, or the origin's own words."""
    files: tuple[RawFile, ...] = ()
    held_out: tuple[RawFile, ...] = ()
    """Benchmark files that lie inside `files`: rows with one of their prompts are left out, whatever the profile."""
    held_out_field: str = "problem"
    """Where their records have the prompt."""
    makers: Mapping[Kind, Make] = field(default_factory=dict)
    """Kind of data set → function from a record to a row."""
    reader: Reader = jsonl
    options: Mapping[str, Sequence[str | float]] = field(default_factory=dict)
    """Option → what it may be, the default first; a pair of numbers is a range whose default is its start."""
    generators: Mapping[Kind, Generate] = field(default_factory=dict)
    """For procedural sources, which have parameters instead of files."""
    revision: str = ""
    """Version of the origin where the addresses do not say it."""
    note: str = ""
    """What a reader of the manifest should know."""

    @property
    def procedural(self) -> bool:
        """Whether rows are made, not read. Their prompts follow templates."""
        return bool(self.generators)

    @property
    def raw_files(self) -> tuple[RawFile, ...]:
        """All that must be read."""
        return (*self.files, *self.held_out)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What it can give."""
        return (*self.makers, *self.generators)

    def rows(self, kind: Kind, entry: SourceEntry, paths: Sequence[Path], seed: int) -> Iterator[Placed | BadRow]:
        """Every row of the source as `kind`, those that cannot be used as `BadRow`.

        Args:
            paths: the raw files, in the order of `raw_files`.
            seed: of a procedural source.

        Raises:
            ValueError: an option that the source does not take, or a file that is no data at all.
        """
        options = self.resolve(kind, entry)
        if self.procedural:
            assert entry.limit is not None
            for number, row in enumerate(self.generators[kind](seed, entry.limit, entry), 1):
                yield Placed(row, self.name, number)
            return
        held_out = self._held_out_prompts(paths[len(self.files) :])
        for raw, path in zip(self.files, paths, strict=False):
            context = Context(self.name, self.licence, kind, entry.benchmark or self.name, raw.path, options)
            for item in convert(self.reader(path, raw.path), self.makers[kind], context):
                if isinstance(item, BadRow) or normalise(item.row.prompt) not in held_out:
                    yield item

    def _held_out_prompts(self, paths: Sequence[Path]) -> set[str]:
        prompts = set()
        for raw, path in zip(self.held_out, paths, strict=True):
            for record in self.reader(path, raw.path):
                if isinstance(record, BadRow):
                    raise ValueError(f"the data file {raw.path}, row {record.row}: {record.reason}; fetch it again")
                prompts.add(normalise(record.text(self.held_out_field)))
        return prompts

    def resolve(self, kind: Kind, entry: SourceEntry) -> dict[str, str | float]:
        """The entry's options, checked and completed.

        Raises:
            ValueError: a kind or an option that the source does not have, or no limit where rows are made.
        """
        if kind not in self.kinds:
            raise ValueError(f"data.{kind}: {self.name} has no {kind}; it can give {', '.join(self.kinds)}")
        for name, value in entry.options.items():
            if name not in self.options:
                allowed = ", ".join(self.options) or "none"
                raise ValueError(f"data.{kind}: {self.name} has no option {name!r}; its options: {allowed}")
            _check_option(f"data.{kind}: option {name} of {self.name}", value, self.options[name])
        if self.procedural and entry.limit is None:
            raise ValueError(f"data.{kind}: {self.name} makes rows without end; say how many with limit")
        return {name: allowed[0] for name, allowed in self.options.items()} | entry.options


def _check_option(title: str, value: str | float, allowed: Sequence[str | float]) -> None:
    numbers = [item for item in allowed if not isinstance(item, str)]
    if numbers:
        fits = not isinstance(value, str | bool) and min(numbers) <= value <= max(numbers)
        wanted = f"a number from {min(numbers)} to {max(numbers)}"
    else:
        fits, wanted = value in allowed, "one of " + ", ".join(map(str, allowed))
    if not fits:
        raise ValueError(f"{title} is {value!r}, but must be {wanted}")
