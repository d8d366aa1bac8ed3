"""Typed rows of every data set. One class a kind; Parquet files hold exactly these columns."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from r1kit.schema import Section

Verifier = Literal["math", "choice", "code", "debug", "gym", "none"]
Language = Literal["en", "zh"]


class Row(Section):
    """What every row knows of itself: an id that never changes, and where it came from."""

    id: str
    """`<source>/<index or upstream id>`, unique within a data set and stable for ever."""
    source: str
    """Name of the entry in the table of sources."""
    licence: str
    """SPDX identifier, or the origin's own words."""
    language: Language = "en"
    parents: tuple[str, ...] = ()
    """Ids of the rows this row was made from."""


class Problem(Row):
    """A prompt with what is needed to verify an answer to it. Also a benchmark's row."""

    prompt: str
    verifier: Verifier
    """`none`: a general prompt, judged by a reward model alone. `debug`: code whose prompt shows a fault to mend."""
    answer: str = ""
    """Gold answer in the verifier's terms; empty for code and general prompts."""
    tests: str = ""
    """Python source of the unit tests (code and debug)."""
    solution: str = ""
    """A human solution where the origin has one; decontamination reads it too."""
    benchmark: str = ""
    """Name of the benchmark for held-out rows, else empty."""
    route: Literal["", "helpful", "harmless"] = ""
    """Which reward model judges a general prompt."""
    meta: str = "{}"
    """JSON the verifier needs beyond the answer (a reasoning-gym entry, an entry point, the program
    to mend)."""


class SftRow(Row):
    """A prompt and the response to learn."""

    prompt: str
    response: str
    """The assistant's whole text, `<think>` included where there is one."""
    kind: Literal["chain", "instruction", "pretrain"]
    weight: float = 1.0


class PreferencePair(Row):
    """Two responses to one prompt, the first preferred."""

    prompt: str
    chosen: str
    rejected: str
    route: Literal["helpful", "harmless"]
    split: Literal["train", "heldout"] = "train"


RowType = TypeVar("RowType", bound=Row)


_GROUP_ROWS = 8192
"""Rows that are written, or read, together."""


def read_rows(path: Path, kind: type[RowType]) -> list[RowType]:
    """All rows of a Parquet file.

    Raises:
        ValueError: where the file is missing or a row does not fit its type.
    """
    return list(iterate_rows(path, kind))


def iterate_rows(path: Path, kind: type[RowType]) -> Iterator[RowType]:
    """The rows of a Parquet file, few in memory at a time. Raises ValueError as `read_rows` does."""
    if not path.is_file():
        raise ValueError(f"the data file {path} is missing: run the data stage again")
    for batch in pq.ParquetFile(path).iter_batches(_GROUP_ROWS // 8):
        yield from map(kind.model_validate, batch.to_pylist())


def write_rows(path: Path, rows: Iterable[Row], kind: type[Row]) -> None:
    """Write rows as Parquet as they come: the same rows give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remaining = iter(rows)
    with pq.ParquetWriter(path, schema_of(kind), compression="zstd") as writer:
        while group := list(islice(remaining, _GROUP_ROWS)):
            writer.write_table(table_of(group, kind))


def table_of(rows: Iterable[Row], kind: type[Row]) -> pa.Table:
    """Rows as a table with exactly the columns of their class."""
    return pa.Table.from_pylist([row.model_dump(mode="json") for row in rows], schema_of(kind))


def schema_of(kind: type[Row]) -> pa.Schema:
    """The columns of a class of rows."""
    return pa.schema([(name, _ARROW.get(name, pa.string())) for name in kind.model_fields])


_ARROW = {"parents": pa.list_(pa.string()), "weight": pa.float64()}
