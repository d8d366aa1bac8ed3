"""OpenLineage: the ledger's own entries as JSON lines, each with the START that the standard wants before its end.

A line that ends a run is an entry of the ledger as it stands: its canonical JSON has the digest that the next entry
names. What is lost or altered is said by the last event, of a job `audit`, which is a FAIL where anything is wrong.
"""

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.artifacts import canonical_json
from tasks.exports.making import Event, Making
from tasks.ledger.entry import FACET_SCHEMA_URL, PRODUCER, SCHEMA_URL

_IDS = uuid.UUID("b7c7b9a1-6b0e-4a0c-8a35-5f2f6f0d7c44")


def render(making: Making) -> str:
    """The events of a model's making, oldest first, one a line."""
    return "".join(canonical_json(event).decode("utf-8", "replace") + "\n" for event in events(making))


def events(making: Making) -> Iterator[Mapping[str, Any]]:
    """The events as JSON values."""
    started = {step.record.sequence: step.started for step in making.steps}
    for event in making.events:
        if event.content["eventType"] != "START":
            yield _start(event, started.get(event.recorded.sequence, event.recorded.time))
        yield event.content
    yield from _audit(making)


def _start(event: Event, time: str) -> dict[str, Any]:
    """The beginning of the run that an entry ends."""
    content = event.content
    facets = {name: facet for name, facet in content["run"]["facets"].items() if name == "parent"}
    return {
        "eventType": "START",
        "eventTime": time,
        "producer": PRODUCER,
        "schemaURL": SCHEMA_URL,
        "run": {"runId": content["run"]["runId"], "facets": facets},
        "job": {"namespace": content["job"]["namespace"], "name": content["job"]["name"]},
        "inputs": [],
        "outputs": [],
    }


def _audit(making: Making) -> Iterator[dict[str, Any]]:
    """What hashing everything again found, as a run of its own that took the model."""
    base = {"_producer": PRODUCER, "_schemaURL": FACET_SCHEMA_URL}
    findings = {"problems": list(making.problems), "gaps": list(making.gaps)}
    identity = canonical_json({"events": [e.recorded.digest for e in making.events], **findings}).decode(
        errors="replace"
    )
    run = {"runId": str(uuid.uuid5(_IDS, identity))}
    artifact = making.model.artifact
    common = {
        "eventTime": making.time,
        "producer": PRODUCER,
        "schemaURL": SCHEMA_URL,
        "job": {"namespace": "r1kit", "name": "audit"},
        "inputs": [{"namespace": "r1kit", "name": f"{artifact.kind}@{artifact.digest}"}],
        "outputs": [],
    }
    facet = {
        **base,
        "model": making.title,
        **findings,
        "signature": making.report.signature,
        "ledger_head": making.report.ledger_head,
    }
    yield {"eventType": "START", **common, "run": run}
    ended = {"eventType": "FAIL" if making.problems else "COMPLETE", **common}
    yield {**ended, "run": {**run, "facets": {"r1kit_audit": facet}}}
