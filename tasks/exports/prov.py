"""W3C PROV-JSON: artifacts as entities, stages and what people did as activities, people and r1kit as agents."""

import hashlib
from collections.abc import Mapping
from typing import Any

from tasks.exports.making import Making, Step, Thing, dumps
from tasks.ledger import Entry, Recorded

PREFIXES = {
    "artifact": "urn:r1kit:artifact:",
    "entry": "urn:r1kit:ledger:entry:",
    "agent": "urn:r1kit:agent:",
    "r1kit": "urn:r1kit:prov#",
}
_PEOPLE = {"registration": "submitter", "approval": "approver", "promotion": "actor", "rollback": "actor"}
"""Kind of entry → the fact that names who did it."""


class _Document:
    """A PROV document as it is filled; relations are numbered in the order in which they come."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {"prefix": PREFIXES}
        self.generated: set[str] = set()

    def add(self, kind: str, name: str, values: Mapping[str, Any]) -> str:
        """An entity, activity or agent; the first to come is kept."""
        kept = {key: value for key, value in values.items() if value not in ("", None)}
        self.content.setdefault(kind, {}).setdefault(name, kept)
        return name

    def relate(self, kind: str, **values: Any) -> None:
        """A relation between two of them."""
        own = self.content.setdefault(kind, {})
        own[f"_:{kind}{len(own) + 1}"] = {key.replace("_", ":", 1): value for key, value in values.items()}

    def generate(self, entity: str, activity: str, time: str) -> None:
        """PROV lets an entity be made once: who made the same bytes again has influenced them."""
        if entity in self.generated:
            self.relate("wasInfluencedBy", prov_influencee=entity, prov_influencer=activity)
        else:
            self.generated.add(entity)
            self.relate("wasGeneratedBy", prov_entity=entity, prov_activity=activity, prov_time=time)


def render(making: Making) -> str:
    """The document as JSON."""
    document = _Document()
    software = document.add(
        "agent", "agent:r1kit", {"prov:type": _name("prov:SoftwareAgent"), "prov:label": making.producer}
    )
    _entity(document, making.model, making)  # first, so that it stands for the model wherever its bytes are named
    for step in making.steps:
        _stage(document, step, making, software)
    shown = {step.record.sequence for step in making.steps}
    for event in making.events:
        if event.recorded.entry.kind != "stage":
            _deed(document, event.recorded, making)
        elif event.recorded.sequence not in shown and event.recorded.entry.job in ("validate", "evaluate"):
            _examination(document, event.recorded, making, software)
    return dumps(document.content)


def _name(qualified: str) -> dict[str, str]:
    """A value that is a qualified name."""
    return {"$": qualified, "type": "prov:QUALIFIED_NAME"}


def _entity(document: _Document, thing: Thing, making: Making) -> str:
    final = thing.artifact.digest == making.model.artifact.digest
    return document.add(
        "entity",
        f"artifact:{thing.hexadecimal}",
        {
            "prov:label": making.title if final else thing.title,
            "prov:location": thing.artifact.uri,
            "r1kit:kind": thing.artifact.kind,
            "r1kit:digest": thing.artifact.digest,
            "r1kit:size_bytes": thing.artifact.size_bytes,
            "r1kit:fault": thing.fault,
            **(
                {
                    "r1kit:signature": making.report.signature,
                    "r1kit:problem": list(making.problems) or None,
                    "r1kit:gap": list(making.gaps) or None,
                }
                if final
                else {}
            ),
        },
    )


def _stage(document: _Document, step: Step, making: Making, software: str) -> None:
    record = step.record
    activity = document.add(
        "activity",
        f"entry:{record.sequence}",
        {
            "prov:startTime": step.started,
            "prov:endTime": record.time,
            "prov:label": record.title,
            "prov:type": _name(f"r1kit:{record.stage}"),
            "r1kit:seed": record.seed,
            "r1kit:key": record.key,
            "r1kit:code_digest": record.code_digest,
            "r1kit:config_digest": record.config_digest,
            "r1kit:bit_exact": record.exact,
            "r1kit:run": record.run,
            **{f"r1kit:{name}": str(value) for name, value in record.environment.items() if name.isidentifier()},
        },
    )
    document.relate("wasAssociatedWith", prov_activity=activity, prov_agent=software)
    taken = []
    for edge in step.inputs:
        entity = _entity(document, making.things[edge.artifact.digest], making)
        document.relate("used", prov_activity=activity, prov_entity=entity, prov_role=edge.role)
        taken.append(entity)
    for edge in step.outputs:
        entity = _entity(document, making.things[edge.artifact.digest], making)
        document.generate(entity, activity, record.time)
        for source in dict.fromkeys(taken):
            if source != entity:
                document.relate(
                    "wasDerivedFrom", prov_generatedEntity=entity, prov_usedEntity=source, prov_activity=activity
                )


def _examination(document: _Document, recorded: Recorded, making: Making, software: str) -> None:
    """A validation or an evaluation, which made a verdict."""
    entry = recorded.entry
    activity = _activity(document, recorded, f"r1kit:{entry.job}")
    document.relate("wasAssociatedWith", prov_activity=activity, prov_agent=software)
    _use(document, recorded, activity, making)
    for edge in entry.outputs:
        if thing := making.things.get(edge.artifact.digest):
            document.generate(_entity(document, thing, making), activity, recorded.time)


def _deed(document: _Document, recorded: Recorded, making: Making) -> None:
    """What a person did with the model: registered, approved, promoted, rolled back."""
    entry = recorded.entry
    activity = _activity(document, recorded, f"r1kit:{entry.kind}")
    who = str(entry.facts.get(_PEOPLE.get(entry.kind, ""), ""))
    if who:
        name = f"agent:{hashlib.sha256(who.encode('utf-8', 'replace')).hexdigest()[:16]}"
        person = document.add("agent", name, {"prov:type": _name("prov:Person"), "prov:label": who})
        document.relate("wasAssociatedWith", prov_activity=activity, prov_agent=person, prov_role=_PEOPLE[entry.kind])
        if entry.kind == "registration":
            document.relate("wasAttributedTo", prov_entity=f"artifact:{making.model.hexadecimal}", prov_agent=person)
    _use(document, recorded, activity, making)


def _use(document: _Document, recorded: Recorded, activity: str, making: Making) -> None:
    for edge in recorded.entry.inputs:
        if thing := making.things.get(edge.artifact.digest):
            document.relate(
                "used", prov_activity=activity, prov_entity=_entity(document, thing, making), prov_role=edge.role
            )


def _activity(document: _Document, recorded: Recorded, kind: str) -> str:
    return document.add(
        "activity",
        f"entry:{recorded.sequence}",
        {
            "prov:endTime": recorded.time,
            "prov:label": _label(recorded.entry),
            "prov:type": _name(kind),
            "r1kit:status": recorded.entry.status,
            "r1kit:environment": str(recorded.entry.facts.get("environment", ""))
            if recorded.entry.kind != "stage"
            else "",
        },
    )


def _label(entry: Entry) -> str:
    facts = entry.facts
    version = f"{facts['name']}/{facts['version']}" if "version" in facts else str(facts.get("environment", ""))
    return f"{entry.job} {version}".strip() if entry.kind != "stage" else entry.job
