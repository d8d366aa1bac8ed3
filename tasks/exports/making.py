"""How a model was made, gathered once for every export: the audit's report with the artifacts and entries behind it.

Everything is from the ledger and from bytes that were hashed again, offline. The same ledger and the same bytes give
the same description; no time is taken from the clock.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.artifacts import Artifact, FileRecord, digest_json, manifest
from tasks.audit import AuditReport, Question, audit, whereabouts
from tasks.audit.records import ApprovalRecord, StepRecord
from tasks.evidence import UNTRAINED
from tasks.exports.packages import Lock, locks_of
from tasks.exports.scores import Score, read_scores
from tasks.ledger import Edge, History, Ledger, Recorded, open_ledger
from tasks.lineage import (
    ResolvedModel,
    ancestry,
    evaluation_of,
    family_of,
    origin,
    registered,
    resolve_model,
    validation_of,
    versions,
)
from tasks.store import fetch
from tasks.workspace import Workspace

ASKED: tuple[Question, ...] = ("trained", "validated", "approved", "altered")
"""What an export asks of the audit. Whether a model can be rebuilt here depends on this machine, not on the ledger."""
APPROACHES = {"zero": "reinforcement-learning", "reason": "reinforcement-learning", "prefer": "reinforcement-learning",
              "rl_student": "reinforcement-learning"}  # fmt: skip
"""Stage → how it learns; the other stages that make a model are supervised."""


@dataclass(frozen=True)
class Thing:
    """An artifact, and what is found of it now."""

    artifact: Artifact
    fault: str | None
    """Why its bytes are not those recorded; None if they are, or lie elsewhere and were not fetched."""
    files: tuple[FileRecord, ...]
    """Its files with their sha256; empty where the bytes are missing, altered or elsewhere."""

    @property
    def state(self) -> str:
        """What is known of its bytes now, in words."""
        return self.fault or ("exactly those recorded" if self.files else "elsewhere, not hashed for this export")

    @property
    def hexadecimal(self) -> str:
        """Its digest without `sha256:`."""
        return self.artifact.digest.removeprefix("sha256:")

    @property
    def title(self) -> str:
        """`problems 3fa1c2d4e5f6`."""
        return f"{self.artifact.kind} {self.hexadecimal[:12]}"


@dataclass(frozen=True)
class Step:
    """A stage of the lineage, with its artifacts."""

    record: StepRecord
    inputs: tuple[Edge, ...]
    outputs: tuple[Edge, ...]
    runtime: Mapping[str, Any]
    """How it was run: processes, threads, ZeRO stage; empty where the ledger does not say."""
    started: str
    """ISO 8601: its end in the ledger less its seconds."""

    @property
    def makes_model(self) -> bool:
        """Whether a model came out."""
        return any(edge.role == "model" for edge in self.outputs)


@dataclass(frozen=True)
class Event:
    """A ledger entry that concerns the model."""

    recorded: Recorded
    content: Mapping[str, Any]
    """The entry's own OpenLineage event."""


@dataclass(frozen=True)
class Making:
    """All that the exports tell."""

    workspace: Workspace
    report: AuditReport
    model: Thing
    """Where it is registered, else where its stage put it."""
    steps: tuple[Step, ...]
    """Base first."""
    things: Mapping[str, Thing]
    """Digest → every artifact of the steps, the evaluation and the validations; the model where it is registered."""
    events: tuple[Event, ...]
    """Stages of the lineage, validations, evaluation, registrations, approvals, promotions; in the ledger's order."""
    evaluation: Mapping[str, Any]
    """evaluation.json of the model; empty where there is none or it is lost."""
    evaluated: Artifact | None
    architecture: Mapping[str, Any]
    """config.json of the model; empty where it cannot be read."""
    locks: tuple[Lock, ...]
    family: tuple[Recorded, ...]
    """Entries that made a version of the same name, in any environment."""
    problems: tuple[str, ...]
    """All that is wrong: the audit's findings, and lost documents."""
    gaps: tuple[str, ...]
    """What could not be told, without anything being wrong."""

    @property
    def title(self) -> str:
        """`r1kit-staging/3`, or the stage model's name."""
        return f"{self.report.name}/{self.report.version}" if self.report.name else self.report.model

    @property
    def time(self) -> str:
        """When the ledger last said something of this model. Exports bear this time, so that they can be made again."""
        return max(event.recorded.time for event in self.events)

    @property
    def last(self) -> Recorded:
        """The newest entry that concerns the model."""
        return self.events[-1].recorded

    @property
    def producer(self) -> str:
        """The program that wrote the model's last step into the ledger, with its version: `urn:r1kit:0.1.0`."""
        makers = [event for event in self.events if event.recorded.entry.kind == "stage"] or list(self.events)
        return str(makers[-1].content.get("producer", ""))

    @property
    def base(self) -> Mapping[str, Any]:
        """`source`, `revision` and `sha256` of the model that all began with, as configured."""
        configs = (step.record.config.get("model") for step in self.steps if step.record.stage == "base")
        return next((config for config in configs if isinstance(config, dict)), {})

    @property
    def pretrained(self) -> str:
        """Where the base comes from, if it was not made from scratch here."""
        source = str(self.base.get("source", ""))
        return "" if source in ("", "scratch") else source

    @property
    def scores(self) -> list[Score]:
        """The evaluation, benchmark by benchmark."""
        return list(read_scores(self.evaluation))

    @property
    def trainings(self) -> list[Step]:
        """Steps that made a model."""
        return [step for step in self.steps if step.makes_model and step.record.stage not in UNTRAINED]


def describe_making(
    workspace: Workspace, reference: str, *, name: str = "r1kit", approvers: Path | None = None
) -> Making:
    """Audit a model and gather what made it. Raises ValueError where there is no such model."""
    report = audit(workspace, reference, name=name, approvers=approvers, asked=ASKED)
    ledger, name = open_ledger(workspace), family_of(reference, name)
    entries = ledger.entries()
    model = resolve_model(reference, workspace, name)
    model = registered(entries, name, model) or model
    behind = ancestry(entries, model.artifact, model.run)
    steps = tuple(_step(entries, r, s) for r, s in zip(behind.steps, report.steps, strict=True))
    examined = evaluation_of(entries, model.artifact.digest)
    verdicts = [v for record in report.data if (v := validation_of(entries, record.digest))]
    examinations = [*verdicts, *([examined] if examined else [])]
    artifacts = [edge.artifact for step in steps for edge in (*step.inputs, *step.outputs)]
    # What lies elsewhere is fetched only where the audit has fetched it too: the model and its evaluation.
    found = [inspect(a, workspace) for a in dict.fromkeys([*artifacts, *(a for _, a in verdicts)])]
    found += [fetched(artifact, workspace) for _, artifact in ([examined] if examined else [])]
    things = {thing.artifact.digest: thing for thing in sorted(found, key=lambda thing: thing.fault is None)}
    locks = locks_of(step.record.environment for step in reversed(steps))
    thing = fetched(model.artifact, workspace)
    things[model.artifact.digest] = thing
    return Making(
        workspace=workspace,
        report=report,
        model=thing,
        steps=steps,
        things=things,
        events=tuple(_events(ledger, entries, [*behind.steps, *(r for r, _ in examinations)], model)),
        evaluation=_document(things[examined[1].digest], workspace, "evaluation.json") if examined else {},
        evaluated=examined[1] if examined else None,
        architecture=_document(thing, workspace, "config.json"),
        locks=locks,
        family=tuple(versions(entries, name)),
        problems=tuple(_problems(report, [thing, *found])),
        gaps=tuple(_gaps(report, things.values(), locks, examined is not None)),
    )


def inspect(artifact: Artifact, workspace: Workspace) -> Thing:
    """Hash an artifact's files again, where they lie on this machine."""
    if artifact.path is None:
        return Thing(artifact, None, ())
    try:
        files = manifest(artifact.path)
    except ValueError:
        files = []
    if digest_json(files) == artifact.digest:
        return Thing(artifact, None, tuple(files))
    found, wrong = whereabouts(artifact, workspace)
    return Thing(artifact, wrong, () if wrong or found.path is None else tuple(manifest(found.path)))


def fetched(artifact: Artifact, workspace: Workspace) -> Thing:
    """The same, of an artifact that is fetched where it lies elsewhere."""
    if artifact.path is not None:
        return inspect(artifact, workspace)
    try:
        return Thing(artifact, None, tuple(manifest(fetch(artifact, workspace))))
    except ValueError as error:
        return Thing(artifact, str(error), ())


def _step(entries: Sequence[Recorded], recorded: Recorded, record: StepRecord) -> Step:
    ran = origin(entries, recorded).entry.facts
    started = moment(record.time, record.sequence) - timedelta(seconds=float(record.seconds))
    runtime = ran.get("runtime") or {}
    return Step(
        record, recorded.entry.inputs, recorded.entry.outputs, runtime, started.isoformat(timespec="milliseconds")
    )


def moment(time: str, sequence: int) -> datetime:
    """The time of a ledger entry. Raises ValueError where it is none."""
    try:
        return datetime.fromisoformat(time)
    except ValueError:
        raise ValueError(f"ledger entry {sequence}: {time!r} is not a time; was it altered? see `r1 audit`") from None


def _events(
    ledger: Ledger,
    entries: Sequence[Recorded],
    stages: Iterable[Recorded],
    model: ResolvedModel,
) -> Iterator[Event]:
    """The entries that concern the model, each once, in order: these stages, and what was done with the model."""
    seen, digest = History.of(entries), model.artifact.digest
    wanted = {r.sequence: r for stage in stages for r in (stage, origin(entries, stage))}
    named = (*seen.with_input(digest), *seen.with_output(digest))
    wanted |= {recorded.sequence: recorded for recorded in named if recorded.entry.kind != "stage"}
    for number in sorted(wanted):
        content = ledger.content(number)
        if content is None:
            raise ValueError(f"ledger entry {number} went away while it was read; see `r1 audit`")
        yield Event(wanted[number], json.loads(content))


def _document(thing: Thing, workspace: Workspace, name: str) -> dict[str, Any]:
    """A JSON file of an artifact whose bytes are those recorded; empty where they are not, or it is no JSON object."""
    if not thing.files:
        return {}
    try:
        path = fetch(whereabouts(thing.artifact, workspace)[0], workspace)
        content = json.loads((path / name if path.is_dir() else path).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _problems(report: AuditReport, things: Iterable[Thing]) -> list[str]:
    """The audit's problems, and artifacts that it does not look at."""
    told = list(report.problems)
    for thing in things:
        if thing.fault and not any(thing.fault in problem for problem in told):
            told.append(f"{thing.artifact.kind}: {thing.fault}")
    return told


def _gaps(report: AuditReport, things: Iterable[Thing], locks: Sequence[Lock], examined: bool) -> Iterator[str]:
    if not report.name:
        yield "the model is not registered, so it has no signature, no approval and no place in an environment"
    if not examined:
        yield "the model was never evaluated"
    for thing in things:
        if thing.fault is None and not thing.files:
            yield f"{thing.title} lies at {thing.artifact.uri} and was not hashed again for this export"
    for lock in locks:
        if lock.packages is None:
            yield f"no requirements.lock with the digest {lock.digest} is found here, so its packages are not listed"
    if not locks:
        yield "the ledger names no lock of Python packages"


def standing(approval: ApprovalRecord) -> str:
    """Whether an approval holds, in words."""
    return approval.fault or approval.since or "signature verified"


def dumps(value: Any) -> str:
    """JSON for people and machines; characters that UTF-8 cannot hold become question marks."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "replace").decode()
