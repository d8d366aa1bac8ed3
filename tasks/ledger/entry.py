"""What an entry of the ledger is, and how it is written: a complete OpenLineage RunEvent.

The facet `r1kit_entry` chains the entries: it carries the entry's number and the sha256 of the bytes before it.
"""

import functools
import platform
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from pydantic import Field, ValidationError

from r1kit import __version__
from r1kit.schema import Section
from tasks.artifacts import Artifact, canonical_json, digest_bytes
from tasks.hardware import hardware
from tasks.workspace import REPOSITORY

EntryKind = Literal["stage", "run", "registration", "approval", "promotion", "rollback", "deletion"]
"""Validations and evaluations are stages."""
Status = Literal["ran", "reused", "failed", "done", "intended", "undone"]

GENESIS = "sha256:" + "0" * 64
"""What the first entry names as the one before it."""
PRODUCER = f"urn:r1kit:{__version__}"
SCHEMA_URL = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACET_SCHEMA_URL = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"
_IDS = uuid.UUID("3f0d6d9e-51a4-4b57-9a4e-0c5b4c1f6d11")
_EVENT_TYPES: dict[Status, str] = {
    "ran": "COMPLETE", "reused": "COMPLETE", "done": "COMPLETE",
    "intended": "START", "failed": "FAIL", "undone": "ABORT",
}  # fmt: skip


class Edge(Section):
    """An artifact in the part it played."""

    role: str
    artifact: Artifact


class Entry(Section):
    """What happened, before it has a place in the chain."""

    kind: EntryKind
    job: str
    """The stage, or the action."""
    instance: str = ""
    """Which one, where a stage runs several times in a recipe: the student, the model evaluated."""
    status: Status
    run: str = ""
    """The recipe run it belongs to."""
    inputs: tuple[Edge, ...] = ()
    outputs: tuple[Edge, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    """Everything else, as JSON."""

    def input(self, role: str) -> Artifact | None:
        """The input that played this part."""
        return next((edge.artifact for edge in self.inputs if edge.role == role), None)

    def output(self, role: str) -> Artifact | None:
        """The output that played this part."""
        return next((edge.artifact for edge in self.outputs if edge.role == role), None)


@dataclass(frozen=True)
class Recorded:
    """An entry in its place."""

    sequence: int
    digest: str
    """sha256 of the entry's bytes."""
    previous: str
    time: str
    entry: Entry


@dataclass(frozen=True)
class Head:
    """The ledger's length and the digest of its last entry: names everything before it."""

    sequence: int
    digest: str


def stage_entry(
    *,
    stage: str,
    status: Literal["ran", "reused", "failed"],
    run: str,
    key: str,
    code_digest: str,
    config: Mapping[str, Any],
    seed: int,
    inputs: Mapping[str, Artifact],
    outputs: Mapping[str, Artifact],
    instance: str = "",
    seconds: float = 0.0,
    metrics: Mapping[str, float] | None = None,
    mlflow_run_id: str = "",
    prefect_run_id: str = "",
    error: str = "",
    facts: Mapping[str, Any] | None = None,
) -> Entry:
    """The entry of a stage that ran, was reused or failed. `config` is its slice, resolved."""
    stated = {
        "key": key,
        "code_digest": code_digest,
        "config": dict(config),
        "config_digest": digest_bytes(canonical_json(dict(config))),
        "seed": seed,
        "seconds": seconds,
        "metrics": {name: _finite(value) for name, value in (metrics or {}).items()},
        "mlflow_run_id": mlflow_run_id,
        "prefect_run_id": prefect_run_id,
        "environment": environment(),
        **({"error": error} if error else {}),
        **(facts or {}),
    }
    return Entry(
        kind="stage",
        job=stage,
        instance=instance,
        status=status,
        run=run,
        inputs=tuple(Edge(role=role, artifact=artifact) for role, artifact in inputs.items()),
        outputs=tuple(Edge(role=role, artifact=artifact) for role, artifact in outputs.items()),
        facts=stated,
    )


@functools.cache
def environment() -> dict[str, str]:
    """What the code ran in: lock digest, git commit (with `+changes`), Python, machine, its processor and GPUs."""
    lock = REPOSITORY / "requirements.lock"
    return {
        "lock_digest": digest_bytes(lock.read_bytes()) if lock.is_file() else "",
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **hardware(),
    }


def _commit() -> str:
    commit = _git("rev-parse", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return commit + "+changes" if commit and changed else commit


def _git(*arguments: str) -> str:
    """A git command's output; empty where there is no git or no repository."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _finite(value: float) -> float | str:
    """JSON has no NaN and no infinity: those are written as words."""
    number = float(value)
    return number if abs(number) < float("inf") else str(number)


def new_id() -> str:
    """What tells an entry from every other, another writer's with the same content too: its OpenLineage run id."""
    return str(uuid.uuid4())


def to_bytes(entry: Entry, sequence: int, previous: str, identity: str) -> bytes:
    """An entry in its place, as it is kept."""
    return canonical_json(_event(entry, sequence, previous, identity))


def _event(entry: Entry, sequence: int, previous: str, identity: str) -> dict[str, Any]:
    """The OpenLineage RunEvent of an entry."""
    base = {"_producer": PRODUCER, "_schemaURL": FACET_SCHEMA_URL}
    title = f"{entry.job}[{entry.instance}]" if entry.instance else entry.job
    facets: dict[str, Any] = {
        "r1kit_entry": {
            **base,
            "sequence": sequence,
            "previous": previous,
            "kind": entry.kind,
            "job": entry.job,
            "instance": entry.instance,
            "status": entry.status,
            "run": entry.run,
        },
        "r1kit_facts": {**base, "facts": entry.facts},
    }
    if entry.run:
        parent = {
            "run": {"runId": str(uuid.uuid5(_IDS, entry.run))},
            "job": {"namespace": "r1kit", "name": "recipe"},
        }
        facets["parent"] = {**base, **parent}
    return {
        "eventType": _EVENT_TYPES[entry.status],
        "eventTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "producer": PRODUCER,
        "schemaURL": SCHEMA_URL,
        "run": {"runId": identity, "facets": facets},
        "job": {"namespace": "r1kit", "name": title, "facets": {}},
        "inputs": [_data_set(edge, "inputFacets") for edge in entry.inputs],
        "outputs": [_data_set(edge, "outputFacets") for edge in entry.outputs],
    }


def _data_set(edge: Edge, own_facets: str) -> dict[str, Any]:
    """An OpenLineage data set: named by its digest, so that the same bytes are the same node."""
    facet = {
        "_producer": PRODUCER,
        "_schemaURL": FACET_SCHEMA_URL,
        "role": edge.role,
        **edge.artifact.model_dump(),
    }
    return {
        "namespace": "r1kit",
        "name": f"{edge.artifact.kind}@{edge.artifact.digest}",
        "facets": {"r1kit_artifact": facet},
        own_facets: {},
    }


def parse(content: bytes, sequence: int, where: object = "") -> Recorded:
    """The entry that these bytes are. Raises ValueError, naming `where` or the number, if they are not that one."""
    try:
        event = orjson.loads(content)
        own = event["run"]["facets"]["r1kit_entry"]
        if own["sequence"] != sequence:
            raise ValueError(f"it says that it is number {own['sequence']}")
        entry = Entry(
            kind=own["kind"],
            job=own["job"],
            instance=own["instance"],
            status=own["status"],
            run=own["run"],
            inputs=tuple(_edges(event["inputs"])),
            outputs=tuple(_edges(event["outputs"])),
            facts=event["run"]["facets"]["r1kit_facts"]["facts"],
        )
        return Recorded(sequence, digest_bytes(content), str(own["previous"]), event["eventTime"], entry)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise ValueError(f"ledger entry {where or sequence} cannot be read: {error}") from error


def previous_of(content: bytes, sequence: int, where: object = "") -> str:
    """The digest that an entry names as the one before it: all that the chain needs. Raises ValueError as `parse`."""
    try:
        own = orjson.loads(content)["run"]["facets"]["r1kit_entry"]
        if own["sequence"] != sequence:
            raise ValueError(f"it says that it is number {own['sequence']}")
        return str(own["previous"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"ledger entry {where or sequence} cannot be read: {error}") from error


def _edges(data_sets: list[dict[str, Any]]) -> Iterator[Edge]:
    for data_set in data_sets:
        facet = data_set["facets"]["r1kit_artifact"]
        artifact = Artifact(**{name: facet[name] for name in ("kind", "uri", "digest", "size_bytes")})
        yield Edge(role=facet["role"], artifact=artifact)
