"""What a model was trained on: where the rows lie, where they came from, what the gate said of them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.artifacts import Artifact, fault, verify
from tasks.audit.records import DataRecord, RowsRecord
from tasks.ledger import Recorded
from tasks.lineage import Ancestry, made, origin, producer
from tasks.store import fetch, store_fault
from tasks.workspace import REPOSITORY, Workspace

Look = Callable[[Artifact], str | None]
"""Why the bytes at an artifact's place are not those recorded; None if they are."""
DVC_CACHE = REPOSITORY / ".dvc" / "cache"


def whereabouts(artifact: Artifact, workspace: Workspace, cache: Path = DVC_CACHE) -> tuple[Artifact, str | None]:
    """An artifact where its bytes are found on this machine, or as recorded with what is wrong with it.

    Newer data sets replace older ones in their place; DVC's cache keeps the older bytes under their own hash. What lies
    elsewhere is fetched, once: whether it still lies there is another question, `place_fault`'s.
    """
    if artifact.path is None:
        try:
            return artifact.model_copy(update={"uri": fetch(artifact, workspace).resolve().as_uri()}), None
        except ValueError as error:
            return artifact, str(error)
    wrong = fault(artifact)
    if wrong and cache.is_dir():
        for file in cache.rglob("*"):
            if file.is_file() and file.stat().st_size == artifact.size_bytes:
                kept = artifact.model_copy(update={"uri": file.resolve().as_uri()})
                if verify(kept):
                    return kept, None
    return artifact, wrong


def place_fault(artifact: Artifact, workspace: Workspace, cache: Path = DVC_CACHE) -> str | None:
    """Why the bytes at an artifact's place are not those recorded; None if they are. A remote one is fetched anew."""
    return whereabouts(artifact, workspace, cache)[1] if artifact.path else store_fault(artifact, workspace)


def looking_once(workspace: Workspace) -> Look:
    """`place_fault` that looks at each artifact once: those elsewhere may be large."""
    found: dict[tuple[str, str], str | None] = {}

    def look(artifact: Artifact) -> str | None:
        place = artifact.uri, artifact.digest
        if place not in found:
            found[place] = place_fault(artifact, workspace)
        return found[place]

    return look


def document(workspace: Workspace, artifact: Artifact | None) -> dict[str, Any]:
    """The JSON of a small artifact; empty where it is gone or altered, which its step's faults say."""
    if artifact is None:
        return {}
    try:
        found = json.loads(fetch(whereabouts(artifact, workspace)[0], workspace).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def data_record(workspace: Workspace, entries: Sequence[Recorded], behind: Ancestry, artifact: Artifact) -> DataRecord:
    """A prepared data set of a lineage: its sources, and what the gate said of exactly these bytes."""
    makers = (step.entry for step in behind.steps if step.entry.output(artifact.kind) == artifact)
    manifest = next((found for entry in makers if (found := entry.output("manifest"))), None)
    place, wrong = whereabouts(artifact, workspace)
    found, trained = first_validation(entries, artifact.digest), _trained_at(entries, behind, artifact)
    content = document(workspace, found[1]) if found else {}
    verdict = data_verdict(content, artifact.kind)
    checks = [check for check in verdict.get("checks", ()) if isinstance(check, Mapping)]
    return DataRecord(
        kind=artifact.kind,
        digest=artifact.digest,
        uri=place.uri if artifact.path else artifact.uri,
        rows=None if wrong else num_rows(place),
        fault=wrong,
        sources=tuple(data_sources(document(workspace, manifest), artifact.kind)),
        validated=found[0].time if found else None,
        validation_sequence=found[0].sequence if found else 0,
        rules=tuple(_rule(check) for check in checks),
        verdict=verdict,
        verdict_fault=_verdict_fault(artifact, found[0] if found else None, verdict, trained),
    )


def first_validation(entries: Sequence[Recorded], digest: str) -> tuple[Recorded, Artifact] | None:
    """The earliest validation that let exactly these bytes pass: the one that training could know of."""
    for recorded in entries:
        result = recorded.entry.output("validation")
        if made(recorded) and result is not None and any(e.artifact.digest == digest for e in recorded.entry.inputs):
            return recorded, result
    return None


def _trained_at(entries: Sequence[Recorded], behind: Ancestry, artifact: Artifact) -> int:
    """The ledger entry of the first step that took a data set."""
    took = (s for s in behind.steps if any(e.artifact.digest == artifact.digest for e in s.entry.inputs))
    return min((origin(entries, step).sequence for step in took), default=0)


def _verdict_fault(
    artifact: Artifact, validation: Recorded | None, verdict: Mapping[str, Any], trained: int
) -> str | None:
    """Why what was validated is not what was trained on. A verdict that is gone is told as such elsewhere."""
    if validation is None:
        return "never validated as these bytes"
    if validation.sequence > trained:
        return f"validated only after ledger entry {trained} had trained on it, by entry {validation.sequence}"
    if verdict and verdict.get("digest") != artifact.digest:
        return f"the verdict of ledger entry {validation.sequence} is of {str(verdict.get('digest'))[:19]}…"
    if verdict and not verdict.get("success"):
        return f"the verdict of ledger entry {validation.sequence} is that it failed"
    return None


def rows_of(workspace: Workspace, entries: Sequence[Recorded], step: Recorded) -> Iterator[RowsRecord]:
    """The tables among the inputs of a step."""
    for edge in step.entry.inputs:
        if not edge.artifact.uri.endswith(".parquet"):
            continue
        place, wrong = whereabouts(edge.artifact, workspace)
        maker = producer(entries, edge.artifact.digest, step.entry.run, edge.artifact.uri)
        yield RowsRecord(
            role=edge.role,
            kind=edge.artifact.kind,
            digest=edge.artifact.digest,
            uri=place.uri if edge.artifact.path else edge.artifact.uri,
            rows=None if wrong else num_rows(place),
            made_by=maker.entry.job if maker else "",
            fault=wrong,
        )


def num_rows(artifact: Artifact) -> int | None:
    """Rows of a Parquet file; None for other files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = artifact.path
    if path is None or not path.is_file():
        return None
    try:
        return int(pq.read_metadata(path).num_rows)
    except pa.ArrowInvalid:
        return None


def _rule(check: Mapping[str, Any]) -> str:
    """`ids are unique`, `tokens are few (at most 4096)`."""
    limit = check.get("limit")
    return f"{check.get('rule')} ({limit})" if limit else str(check.get("rule"))


def data_sources(manifest: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """The sources of one kind of rows, from the data stage's manifest.json."""
    return [dict(source) for source in manifest.get("sources", []) if source.get("kind") == kind]


def data_verdict(validation: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What validation.json says of one kind of rows."""
    return next((dict(file) for file in validation.get("files", []) if file.get("kind") == kind), {})
