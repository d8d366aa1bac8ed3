"""Preparing data: from raw files and generators to one typed Parquet file a kind, with the story of every row."""

import heapq
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from r1kit.data.config import KINDS, DataConfig, Kind, SourceEntry
from r1kit.data.decontaminate import BenchmarkIndex
from r1kit.data.fetch import raw_file, sha256_of
from r1kit.data.records import BadRow, Placed
from r1kit.data.sift import Sieve, Sifted
from r1kit.data.source import RawFile, Source
from r1kit.data.table import SOURCES
from r1kit.random import derive_seed
from r1kit.rewards import VerifierPool
from r1kit.rows import PreferencePair, Problem, Row, SftRow, iterate_rows, write_rows
from r1kit.settings import suggest

Log = Callable[[int, int, Mapping[str, float]], None]
"""log(sources done, sources in all, metrics)."""

FORMAT = "r1kit data 1"
ROW_TYPES: dict[Kind, type[Row]] = {
    "pretrain": SftRow,
    "problems": Problem,
    "chains": SftRow,
    "instructions": SftRow,
    "preferences": PreferencePair,
    "benchmarks": Problem,
}
"""Kind of data set → type of its rows."""


@dataclass(frozen=True)
class _Order:
    """One source asked for one kind of rows."""

    kind: Kind
    entry: SourceEntry
    source: Source
    options: dict[str, Any]
    seed: int

    def rows(self, raw: Mapping[str, Path]) -> Iterator[Placed | BadRow]:
        """All of them, from the raw files."""
        paths = [raw[file.path] for file in self.source.raw_files]
        return self.source.rows(self.kind, self.entry, paths, self.seed)


@dataclass(frozen=True)
class _Done:
    """An order, and what became of it."""

    order: _Order
    sifted: Sifted
    kept: Path
    """Where its rows wait for those of the other sources of their kind."""


def prepare(
    config: DataConfig, output: Path, *, cache_dir: Path, pool: VerifierPool, say: Callable[[str], None], log: Log
) -> dict[str, Any]:
    """Writes `<kind>.parquet` for each of the six kinds, `quarantine.jsonl` and `manifest.json`.

    The same configuration gives the same bytes, wherever the raw files come from. Where a kind has several sources,
    their rows are dealt out evenly, so that the first rows of a file are a fair sample of all of them. Training rows
    are held against every row of the benchmarks' sources, those beyond a limit too. Rows pass through, some thousand
    in memory at a time.

    Args:
        output: directory to write to; it may exist.
        cache_dir: where downloaded files stay.
        pool: checks that every gold answer scores 1.
        say: is told what happens, in words.
        log: is told after each source.

    Returns:
        What manifest.json holds.

    Raises:
        ValueError: an unknown source or option, a raw file that is missing or altered, or a kind without rows.
    """
    orders = _orders(config)
    needed = dict.fromkeys(file for order in orders for file in order.source.raw_files)
    raw = {file.path: raw_file(file, config.mirror, cache_dir, config.checksums) for file in needed}
    index = BenchmarkIndex(_held_out(orders, raw))
    output.mkdir(parents=True, exist_ok=True)
    done: list[_Done] = []
    for kind in KINDS:
        sieve = Sieve(kind, pool, None if kind == "benchmarks" else index, config.allowed_licences)
        with tempfile.TemporaryDirectory(dir=output, prefix=".sources-") as scratch:
            for order in (order for order in orders if order.kind == kind):
                say(f"{kind}: {order.source.name}")
                result = _Done(order, Sifted(), Path(scratch) / f"{len(done)}.parquet")
                kept = sieve.sift(
                    order.source.name, order.rows(raw), result.sifted, order.entry.limit, order.source.procedural
                )
                write_rows(result.kept, kept, ROW_TYPES[kind])
                done.append(result)
                log(len(done), len(orders), _metrics(done))
                say(f"{kind}: {order.source.name}: {_summary(result.sifted)}")
            of_kind = [result for result in done if result.order.kind == kind]
            if of_kind and not any(result.sifted.num_kept for result in of_kind):
                raise ValueError(_nothing_left(kind, of_kind))
            write_rows(output / f"{kind}.parquet", _dealt_out(of_kind), ROW_TYPES[kind])
    _write_quarantine(output / "quarantine.jsonl", done)
    manifest = {
        "format": FORMAT,
        "config": config.model_dump(mode="json", exclude={"mirror"}),
        "kinds": {kind: _file_facts(output / f"{kind}.parquet", ROW_TYPES[kind]) for kind in KINDS},
        "sources": [_source_facts(result, raw, config) for result in done],
    }
    (output / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def _orders(config: DataConfig) -> list[_Order]:
    """What the configuration asks for, all of it checked before anything is read."""
    orders = []
    for kind in KINDS:
        for place, entry in enumerate(config.entries(kind)):
            source = SOURCES.get(entry.source)
            if source is None:
                raise ValueError(f"data.{kind}: there is no source {entry.source!r}; {suggest(entry.source, SOURCES)}")
            options = source.resolve(kind, entry)
            # Kinds must not share problems by sharing a seed; 32 bits keep the rows' ids readable.
            seed = derive_seed("data", config.seed, kind, entry.source, place) % 2**32
            orders.append(_Order(kind, entry, source, options, seed))
    return orders


def _held_out(orders: Sequence[_Order], raw: Mapping[str, Path]) -> Iterator[Problem]:
    """Every row of the benchmarks' sources."""
    for order in orders:
        for item in order.rows(raw) if order.kind == "benchmarks" else ():
            if isinstance(item, Placed):
                assert isinstance(item.row, Problem)
                yield item.row


def _dealt_out(of_kind: Sequence[_Done]) -> Iterator[Row]:
    """The sources' rows in one line, each source spread evenly over it and in its own order."""

    def placed(group: int, result: _Done) -> Iterator[tuple[float, int, Row]]:
        rows = iterate_rows(result.kept, ROW_TYPES[result.order.kind])
        for number, row in enumerate(rows):
            yield (number + 0.5) / result.sifted.num_kept, group, row

    merged = heapq.merge(*(placed(*item) for item in enumerate(of_kind)), key=lambda item: item[:2])
    return (row for _, _, row in merged)


def _nothing_left(kind: Kind, of_kind: Sequence[_Done]) -> str:
    causes = "; ".join(f"{result.order.source.name}: {_summary(result.sifted)}" for result in of_kind)
    first = next((row for result in of_kind for row in result.sifted.set_aside), None)
    example = (
        f", the first being {first.file}, row {first.row}, {first.field or 'the whole row'}: {first.reason}"
        if first
        else ""
    )
    return f"data.{kind} has no rows ({causes}{example}): name other sources, or mend these"


def _summary(sifted: Sifted) -> str:
    """`7000 of 7473 rows kept, 3 unverifiable, 470 contaminated`."""
    aside = "".join(f", {count} {rule}" for rule, count in sorted(sifted.counts().items()))
    return f"{sifted.num_kept} of {sifted.num_read} rows kept{aside}"


def _metrics(done: Sequence[_Done]) -> dict[str, float]:
    return {
        "rows_kept": float(sum(result.sifted.num_kept for result in done)),
        "rows_set_aside": float(sum(len(result.sifted.set_aside) for result in done)),
        "rows_quarantined": float(sum(result.sifted.num_faults for result in done)),
    }


def _write_quarantine(path: Path, done: Sequence[_Done]) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for result in done:
            for row in result.sifted.set_aside:
                stream.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def _file_facts(path: Path, kind: type[Row]) -> dict[str, Any]:
    """What the manifest says of a prepared file."""
    return {
        "rows": pq.read_metadata(path).num_rows,
        "type": kind.__name__,
        "sha256": sha256_of(path),
        "bytes": path.stat().st_size,
    }


def _raw_facts(file: RawFile, path: Path, config: DataConfig) -> dict[str, Any]:
    return {
        "path": file.path,
        "url": file.url,
        "sha256": file.sha256 or config.checksums[file.path],
        "bytes": path.stat().st_size,
    }


def _source_facts(result: _Done, raw: Mapping[str, Path], config: DataConfig) -> dict[str, Any]:
    """What the manifest says of a source of one kind."""
    order, sifted = result.order, result.sifted
    source, counts = order.source, sifted.counts()
    return {
        "kind": order.kind,
        "source": source.name,
        "files": [_raw_facts(file, raw[file.path], config) for file in source.raw_files],
        "revision": source.revision,
        "licence": source.licence,
        "seed": order.seed if source.procedural else None,
        "limit": order.entry.limit,
        "benchmark": order.entry.benchmark,
        "options": order.options,
        "rows_read": sifted.num_read,
        "rows_kept": sifted.num_kept,
        "quarantined": sifted.num_faults,
        "duplicates": counts["duplicate"],
        "contaminated": counts["contaminated"],
        "unlicensed": counts["licence"],
        "note": source.note,
    }
