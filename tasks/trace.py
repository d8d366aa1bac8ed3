"""The way of one row: where it came from, which samples were drawn for it, and which models learned from it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.data.config import KINDS
from r1kit.schema import Section
from r1kit.settings import suggest
from tasks.artifacts import Artifact
from tasks.audit import whereabouts
from tasks.audit.touched import Start, spread
from tasks.ledger import Recorded, open_ledger
from tasks.lineage import made, model_name, producer
from tasks.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

ROW_FILES = (*KINDS, "curated", "cold_start_data")
"""Roles of files with rows."""
_HELD_BACK = "benchmarks"
"""Role of the rows that nothing learns from: where a stage has them beside others, it is to keep away from them."""


class Place(Section):
    """A file in which the row stands."""

    role: str
    stage: str
    digest: str
    """Of the file."""
    number: int
    """From 1."""
    values: dict[str, Any]
    """The row."""


class Sample(Section):
    """A response that was drawn, and the verdict on it."""

    row: str
    """Its id; a row of the curated set has it where it was kept."""
    problem: str
    model: str
    """What people call the model that was sampled."""
    checkpoint: str
    """Its digest."""
    sample: int
    """Number of the sample within its problem."""
    verifier: str
    score: float
    kept: bool
    reason: str
    """Why it was dropped, or the verifier's words."""


class Aside(Section):
    """A row that was set aside before training."""

    kind: str
    file: str
    number: int
    rule: str
    field: str
    value: str
    reason: str


class Learner(Section):
    """A model that learned from a file with the row, or with what was drawn for it."""

    model: str
    way: str
    """`curated → refine → dev3 (entry 12)`: the row's file, and the steps from it."""


class Trace(Section):
    """All that is known of a row in one run."""

    row: str
    run: str
    places: tuple[Place, ...]
    origin: dict[str, Any]
    """Its source: name, licence, revision, raw files with address and sha256; empty for a sampled row."""
    sample: Sample | None
    """The draw it came from; None for a row of a source."""
    set_aside: tuple[Aside, ...]
    parents: tuple["Trace", ...]
    """The rows it was made from."""
    samples: tuple[Sample, ...]
    """What was drawn for it, kept or dropped."""
    children: tuple[str, ...]
    """Rows that were made from it."""
    learners: tuple[Learner, ...]
    missing: tuple[str, ...]
    """Files that could not be searched because their bytes are gone or altered."""


def trace(workspace: Workspace, row: str, run: str = "") -> Trace:
    """Follow a row both ways, in the latest run that knows it, or in `run`.

    Raises ValueError where no run knows it.
    """
    entries = open_ledger(workspace).entries()
    runs = list(dict.fromkeys(r.entry.run for r in reversed(entries) if made(r) and r.entry.run))
    if run and run not in runs:
        raise ValueError(f"there is no run {run!r} in the ledger; {suggest(run, runs)}")
    seen: list[str] = []
    for candidate in [run] if run else runs:
        searched = _Run(workspace, entries, candidate)
        found = searched.trace(row)
        if found.places or found.sample or found.set_aside or found.samples:
            return found
        seen = seen or searched.some_ids()
    if not runs:
        raise ValueError("no run is in the ledger yet; start with `r1 run`")
    known = f"; ids look like {', '.join(seen)}" if seen else ""
    raise ValueError(f"no row {row!r} in {f'run {run}' if run else f'any of {len(runs)} runs'}{known}")


class _Run:
    """The files with rows of one run."""

    def __init__(self, workspace: Workspace, entries: Sequence[Recorded], run: str) -> None:
        self._entries, self._name = entries, run
        self._own = [r for r in entries if made(r) and r.entry.run == run]
        self._missing: list[str] = []
        found: dict[str, dict[str, tuple[Recorded, Artifact, Path]]] = {}
        for recorded in self._own:
            for edge in recorded.entry.outputs:
                if edge.role in (*ROW_FILES, "decisions", "quarantine", "manifest"):
                    place, wrong = whereabouts(edge.artifact, workspace)
                    if wrong or place.path is None:
                        self._missing.append(f"{edge.role} of {recorded.entry.job}: {wrong}")
                    else:
                        found.setdefault(edge.role, {})[edge.artifact.digest] = (recorded, edge.artifact, place.path)
        self._files = {role: list(files.values()) for role, files in found.items()}

    def trace(self, row: str, above: tuple[str, ...] = ()) -> Trace:
        places = tuple(self._places(row))
        samples = list(self._samples(row))
        own = next((sample for sample in samples if sample.row == row), None)
        drawn = tuple(sample for sample in samples if sample.problem == row)
        parents = dict.fromkeys(name for place in places for name in place.values.get("parents") or ())
        if own is not None:
            parents[own.problem] = None
        children = self._children(row)
        sources = {str(place.values.get("source", "")) for place in places if place.role in KINDS}
        files = {place.digest: place.role for place in places if place.role != _HELD_BACK}
        if not above:
            files |= {p.digest: p.role for child in children for p in self._places(child) if p.role != _HELD_BACK}
        return Trace(
            row=row,
            run=self._name,
            places=places,
            origin=self._origin(sources),
            sample=own,
            set_aside=tuple(self._set_aside(row)),
            parents=tuple(self.trace(name, (*above, row)) for name in parents if name not in (*above, row)),
            samples=drawn,
            children=tuple(children),
            learners=() if above else tuple(self._learners(files)),
            missing=() if above else tuple(self._missing),
        )

    def some_ids(self) -> list[str]:
        """A row's id of each kind of file, to show what they look like."""
        import pyarrow.parquet as pq

        ids = []
        for role in ROW_FILES:
            for _, _, path in self._files.get(role, [])[:1]:
                batch = next(pq.ParquetFile(path).iter_batches(1, columns=["id"]), None)
                ids += batch.column("id").to_pylist() if batch is not None else []
        return ids[:3]

    def _tables(self) -> Iterator[tuple[str, Recorded, Artifact, Path]]:
        for role in ROW_FILES:
            for recorded, artifact, path in self._files.get(role, ()):
                yield role, recorded, artifact, path

    def _places(self, row: str) -> Iterator[Place]:
        for role, recorded, artifact, path in self._tables():
            for start, table in _slices(path, ["id"]):
                for number in (n for n, name in enumerate(table.column("id").to_pylist()) if name == row):
                    values = _row(path, start + number)
                    yield Place(
                        role=role, stage=recorded.entry.job, digest=artifact.digest, number=start + number + 1,
                        values=values,
                    )  # fmt: skip

    def _children(self, row: str) -> list[str]:
        """Rows that name it as a parent."""
        found: dict[str, None] = {}
        for _, _, _, path in self._tables():
            for _, table in _slices(path, ["id", "parents"]):
                named = table.column("parents").to_pylist()
                for number, parents in enumerate(named):
                    if parents and row in parents:
                        found[table.column("id")[number].as_py()] = None
        return list(found)

    def _samples(self, row: str) -> Iterator[Sample]:
        """Draws that are this row, or were made for it."""
        for line in self._lines("decisions", row):
            if row in (line.get("row"), line.get("problem")):
                digest = str(line["checkpoint"])
                maker = producer(self._entries, digest, self._name)
                yield Sample(model=model_name(maker.entry) if maker else "", **line)

    def _set_aside(self, row: str) -> Iterator[Aside]:
        for line in self._lines("quarantine", row):
            if line.get("id") == row:
                own = {name: str(line.get(name, "")) for name in ("kind", "file", "rule", "field", "value", "reason")}
                yield Aside(number=int(line.get("row", 0)), **own)

    def _lines(self, role: str, words: str) -> Iterator[dict[str, Any]]:
        """The JSON lines of a role's files that hold these words; the others are not parsed."""
        wanted = json.dumps(words, ensure_ascii=False)[1:-1]
        for _, _, path in self._files.get(role, ()):
            with path.open(encoding="utf-8") as stream:
                yield from (json.loads(line) for line in stream if wanted in line)

    def _origin(self, sources: set[str]) -> dict[str, Any]:
        for _, _, path in self._files.get("manifest", ()):
            for source in json.loads(path.read_text(encoding="utf-8")).get("sources", ()):
                if source.get("source") in sources:
                    names = ("source", "licence", "revision", "seed", "files")
                    return {name: source[name] for name in names if source.get(name)}
        return {}

    def _learners(self, files: Mapping[str, str]) -> Iterator[Learner]:
        """Models behind which one of these files stands, each by its shortest way."""
        starts = [Start(role, frozenset({digest})) for digest, role in files.items()]
        _, ways = spread(self._own, starts, apart=(_HELD_BACK,))
        for recorded in self._own:
            judges = any(edge.artifact.kind == "reward_model" for edge in recorded.entry.outputs)
            if recorded.sequence in ways and (judges or recorded.entry.output("model")):
                yield Learner(model=model_name(recorded.entry), way=" → ".join(ways[recorded.sequence]))


def _slices(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, "pa.Table"]]:
    """The columns of a Parquet file, some thousand rows at a time, each with the number of its first row from 0."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = 0
    for batch in pq.ParquetFile(path).iter_batches(65536, columns=list(columns)):
        yield start, pa.Table.from_batches([batch])
        start += batch.num_rows


def _row(path: Path, number: int) -> dict[str, Any]:
    """One row of a Parquet file, from its own group alone."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if number < size:
            return file.read_row_group(group).slice(number, 1).to_pylist()[0]
        number -= size
    raise AssertionError(f"{path} has no row {number}")
