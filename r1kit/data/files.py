"""Anybody's data files, row by row: Parquet, JSON lines and JSON lists, gzipped or not."""

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from r1kit.data.records import BadRow, Record, parquet, shown

FORMATS = ".parquet, .jsonl, .ndjson or .json, perhaps with .gz"
_MAX_LINE_BYTES = 64 * 2**20


def records(path: Path) -> Iterator[Record | BadRow]:
    """Every row with its number from 1; what is no JSON object comes as a BadRow, and the rest goes on.

    Only one batch of rows is in memory at a time, but for a .json file, which is read whole.

    Raises:
        ValueError: where there is no such file, its format is unknown, or it is broken as a whole.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; name one of {FORMATS}")
    kind = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    match kind.lower():
        case ".parquet":
            yield from parquet(path, str(path))
        case ".jsonl" | ".ndjson":
            yield from _lines(path)
        case ".json":
            yield from _list(path)
        case _:
            raise ValueError(f"{path}: {kind or 'a file without an ending'} is not read here; it takes {FORMATS}")


def _lines(path: Path) -> Iterator[Record | BadRow]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            while line := stream.readline(_MAX_LINE_BYTES):
                number += 1
                if line.strip():
                    yield _parsed(line, number, str(path))
    except (EOFError, OSError) as error:
        raise ValueError(f"{path} is not whole gzip data, after line {number}: {error}; compress it again") from None


def _list(path: Path) -> Iterator[Record | BadRow]:
    try:
        values = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    except (ValueError, RecursionError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not JSON: {error}; JSON lines end in .jsonl") from None
    if not isinstance(values, list):
        raise ValueError(f"{path} holds no JSON list of rows but {shown(values)[:60]}; write its rows as a list")
    for number, value in enumerate(values, 1):
        yield _checked(value, number, str(path))


def _parsed(line: bytes, number: int, name: str) -> Record | BadRow:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # also bytes that are not UTF-8, and brackets without end
        return BadRow(name, number, "", shown(line.decode(errors="replace").strip()), f"is not JSON: {error}", "json")
    return _checked(value, number, name)


def _checked(value: Any, number: int, name: str) -> Record | BadRow:
    if isinstance(value, Mapping):
        return Record(number, value)
    return BadRow(name, number, "", shown(value), "is not a JSON object", "json")
