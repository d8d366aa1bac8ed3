"""Which models, live or past, does something touch, through any number of steps? And by which path."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifacts import Artifact
from tasks.audit.data import document, whereabouts
from tasks.audit.model import holds
from tasks.audit.records import TouchedModel, TouchedReport
from tasks.ledger import Recorded, open_ledger
from tasks.lineage import family_of, made, model_name, resolve_model, step_title
from tasks.workspace import Workspace

_HEX = re.compile(r"^(?:sha256:)?[0-9a-f]{4,64}$")
_SLICE_ROWS = 20_000
ROW_TEXTS = ("prompt", "response", "chosen", "rejected", "solution")
"""Columns by whose whole text a row can be asked for."""


@dataclass(frozen=True)
class Start:
    """Something that was asked for, as the ledger knows it."""

    title: str
    digests: frozenset[str] = frozenset()
    """Artifacts that are it, or hold it."""
    sequences: frozenset[int] = frozenset()
    """Stages that ran with it: their outputs are touched."""


def touched_by(workspace: Workspace, what: str, *, name: str = "r1kit") -> TouchedReport:
    """Every model whose making something took part in.

    Args:
        what: The beginning of the digest of an artifact or of a stage's code, or of a git commit; a model (`dev1`,
            `r1kit-candidate/2`), reward model (`helpful`), kind of data (`problems`) or source (`gsm8k`) by name; the
            id of a row, or its whole prompt or response.

    Raises ValueError where the ledger and the data sets know no such thing.
    """
    entries = open_ledger(workspace).entries()
    starts = find(workspace, entries, what, name)
    if not starts:
        raise ValueError(
            f"the ledger knows no artifact, code or commit whose digest begins with {what!r}, and no model, reward "
            "model, kind of data, source or row of that name or text"
        )
    paths, _ = spread(entries, starts)
    found: dict[str, TouchedModel] = {}
    for recorded in entries:
        model = recorded.entry.output("model")
        if model is None or model.digest not in paths or recorded.entry.kind == "rollback":
            continue
        title = _model_title(recorded)
        path = paths[model.digest]
        version = recorded.entry.facts.get("version")
        found[title] = TouchedModel(
            model=title,
            digest=model.digest,
            sequence=recorded.sequence,
            holds=_holds(entries, recorded, model),
            path=(*path, f"{title} (entry {recorded.sequence})") if version else path,
        )
    return TouchedReport(what=what, found=tuple(start.title for start in starts), models=tuple(found.values()))


def find(workspace: Workspace, entries: Sequence[Recorded], what: str, name: str) -> list[Start]:
    """What is meant: the first way of reading it that finds anything."""
    ways: tuple[Callable[[], Iterator[Start]], ...] = (
        lambda: _by_digest(entries, what),
        lambda: _by_model(workspace, what, name),
        lambda: _by_role(entries, what),
        lambda: _by_source(workspace, entries, what),
        lambda: _by_row(workspace, entries, what),
    )
    return next((starts for way in ways if (starts := list(way()))), [])


def _by_digest(entries: Sequence[Recorded], what: str) -> Iterator[Start]:
    """Artifacts, versions of code, and commits that begin so."""
    if not _HEX.match(what):
        return
    bare = what.removeprefix("sha256:")
    artifacts = {a.digest: a for a in _artifacts(entries) if a.digest.startswith(f"sha256:{bare}")}
    yield from (Start(f"{a.kind} {digest}", frozenset({digest})) for digest, a in artifacts.items())
    yield from _grouped(entries, "code", lambda facts: facts.get("code_digest", ""), (f"sha256:{bare}", bare))
    yield from _grouped(entries, "commit", lambda facts: facts.get("environment", {}).get("commit", ""), (bare,))


def _grouped(
    entries: Sequence[Recorded], word: str, value: Callable[[Mapping[str, Any]], Any], beginnings: tuple[str, ...]
) -> Iterator[Start]:
    """Stages that ran with a fact of theirs beginning so."""
    groups: dict[str, set[int]] = {}
    for recorded in entries:
        found = str(value(recorded.entry.facts)) if made(recorded) else ""
        if found.startswith(beginnings):
            groups.setdefault(found, set()).add(recorded.sequence)
    yield from (Start(f"{word} {found}", sequences=frozenset(group)) for found, group in groups.items())


def _by_model(workspace: Workspace, what: str, name: str) -> Iterator[Start]:
    try:
        model = resolve_model(what, workspace, family_of(what, name))
    except ValueError:
        return
    yield Start(f"model {model.title} {model.artifact.digest}", frozenset({model.artifact.digest}))


def _by_role(entries: Sequence[Recorded], what: str) -> Iterator[Start]:
    """Everything that stages ever made under that name: reward model `helpful`, kind of data `problems`."""
    found: dict[str, str] = {}
    for recorded in entries:
        for edge in recorded.entry.outputs if made(recorded) else ():
            names = dict.fromkeys((edge.artifact.kind, edge.role, recorded.entry.instance))
            if what in names:
                found.setdefault(edge.artifact.digest, " ".join(filter(None, names)))
    yield from (Start(f"{title} {digest}", frozenset({digest})) for digest, title in found.items())


def _by_source(workspace: Workspace, entries: Sequence[Recorded], what: str) -> Iterator[Start]:
    """Prepared data sets with rows from a source of that name."""
    for recorded in entries:
        manifest = recorded.entry.output("manifest")
        if not made(recorded) or recorded.entry.job != "data" or manifest is None:
            continue
        for source in document(workspace, manifest).get("sources", []):
            rows = recorded.entry.output(str(source.get("kind")))
            if rows is not None and what in (source.get("source"), source.get("name")):
                yield Start(f"source {what} in {rows.kind} {rows.digest}", frozenset({rows.digest}))


def _by_row(workspace: Workspace, entries: Sequence[Recorded], what: str) -> Iterator[Start]:
    """Tables with a row of that id, made from one of that id, or with that whole text."""
    for artifact in {a.digest: a for a in _artifacts(entries) if a.uri.endswith(".parquet")}.values():
        place, wrong = whereabouts(artifact, workspace)
        if wrong is None and place.path is not None and (ids := _rows(place.path, what)):
            more = f" and {len(ids) - 1} more rows" if len(ids) > 1 else ""
            yield Start(f"row {ids[0]}{more} in {artifact.kind} {artifact.digest}", frozenset({artifact.digest}))


def _rows(path: Path, what: str) -> list[str]:
    """Ids of the rows that are meant, in a Parquet file; none in other files."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid:
        return []
    if "id" not in file.schema_arrow.names:
        return []
    columns = [name for name in ("id", "parents", *ROW_TEXTS) if name in file.schema_arrow.names]
    meant = pc.field("id") == what
    for text in (name for name in ROW_TEXTS if name in columns):
        meant = meant | (pc.field(text) == what)
    found: list[str] = []
    for batch in file.iter_batches(_SLICE_ROWS, columns=columns):
        found += pa.Table.from_batches([batch]).filter(meant).column("id").to_pylist()
        if "parents" in columns:
            pairs = zip(batch.column("id").to_pylist(), batch.column("parents").to_pylist(), strict=True)
            found += [id_ for id_, parents in pairs if what in (parents or ())]
    return list(dict.fromkeys(found))


def _artifacts(entries: Sequence[Recorded]) -> Iterator[Artifact]:
    for recorded in entries:
        for edge in (*recorded.entry.inputs, *recorded.entry.outputs):
            yield edge.artifact


def spread(
    entries: Sequence[Recorded], starts: Sequence[Start], apart: Sequence[str] = ()
) -> tuple[dict[str, tuple[str, ...]], dict[int, tuple[str, ...]]]:
    """What something reached, in the order of the ledger, which is that of the making.

    Args:
        apart: Roles of inputs that nothing passes through.

    Returns:
        Digest → the steps by which it was reached first; number of a stage's entry → the shortest way to it.
    """
    paths: dict[str, tuple[str, ...]] = {}
    ways: dict[int, tuple[str, ...]] = {}
    sequences = {sequence: start for start in starts for sequence in start.sequences}
    for start in starts:
        for digest in start.digests:
            paths.setdefault(digest, (start.title,))
    for recorded in entries:
        if not made(recorded):
            continue
        inputs = [edge.artifact.digest for edge in recorded.entry.inputs if edge.role not in apart]
        come = [paths[digest] for digest in inputs if digest in paths]
        begun = sequences.get(recorded.sequence)
        come += [(begun.title,)] if begun else []
        if come:
            path = (*min(come, key=len), f"{step_title(recorded)} (entry {recorded.sequence})")
            ways[recorded.sequence] = path
            for edge in recorded.entry.outputs:
                paths.setdefault(edge.artifact.digest, path)
    return paths, ways


def _holds(entries: Sequence[Recorded], recorded: Recorded, model: Artifact) -> tuple[str, ...]:
    facts = recorded.entry.facts
    family = family_of(str(facts.get("name", "")), "")
    held = holds(entries, family, model.digest) if family else ()
    return tuple(environment for environment in held if environment == facts.get("environment"))


def _model_title(recorded: Recorded) -> str:
    """`r1kit-staging/2` for a version, `r1 of run 7` for a stage's model."""
    facts = recorded.entry.facts
    if "version" in facts:
        return f"{facts['name']}/{facts['version']}"
    return f"{model_name(recorded.entry)} of run {recorded.entry.run}"
