"""What every ledger entry must satisfy beside the others: the clock, stage keys, versions, promotions, approvals."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.artifacts import digest_json
from tasks.audit.people import approval_record, approvals, statement_of, title_of
from tasks.ledger import Edge, Recorded
from tasks.lineage import history, made
from tasks.workspace import Workspace

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far the clocks of machines that write to one ledger may differ."""
_PARTS = ("model", "signature", "evidence")


def entry_faults(workspace: Workspace, entries: Sequence[Recorded], approvers: Path | None = None) -> list[str]:
    """What is wrong with the entries, one sentence each, the entry's number in it."""
    return [
        *_clock_faults(entries),
        *itertools.chain.from_iterable(_stage_faults(entries)),
        *itertools.chain.from_iterable(_promotion_faults(entries)),
        *_version_faults(entries),
        *_approval_faults(workspace, entries, approvers),
    ]


def _clock_faults(entries: Sequence[Recorded]) -> Iterator[str]:
    """Times go forward, and none lies ahead of us."""
    latest, latest_sequence = datetime.fromtimestamp(0, UTC), 0
    now = datetime.now(UTC)
    for recorded in entries:
        try:
            time = datetime.fromisoformat(recorded.time)
        except ValueError:
            time = None
        if time is None or time.tzinfo is None:
            yield f"ledger entry {recorded.sequence} has the time {recorded.time!r}, which is none"
            continue
        if time < latest - CLOCK_TOLERANCE:
            yield (
                f"ledger entry {recorded.sequence} says {recorded.time}, which is before entry {latest_sequence}: "
                "a clock was set back"
            )
        if time > now + CLOCK_TOLERANCE:
            yield f"ledger entry {recorded.sequence} says {recorded.time}, which has not come yet"
        if time > latest:
            latest, latest_sequence = time, recorded.sequence


def _stage_faults(entries: Sequence[Recorded]) -> Iterator[Iterator[str]]:
    """Keys are made of what the entry says; what is reused is what was made."""
    ran: dict[str, list[Recorded]] = {}
    for recorded in entries:
        if recorded.entry.kind != "stage":
            continue
        key = str(recorded.entry.facts.get("key"))
        if recorded.entry.status == "reused":
            yield _reuse_faults(recorded, ran.get(key, []))
        else:
            yield _key_faults(recorded)
        if recorded.entry.status == "ran":
            ran.setdefault(key, []).append(recorded)


def _key_faults(recorded: Recorded) -> Iterator[str]:
    entry, facts = recorded.entry, recorded.entry.facts
    stated = {
        "stage": entry.job,
        "variant": entry.instance,
        "code": facts.get("code_digest"),
        "config": facts.get("config"),
        "inputs": {edge.role: edge.artifact.digest for edge in entry.inputs},
        "seed": facts.get("seed"),
    }
    if digest_json(stated) != facts.get("key"):
        yield (
            f"ledger entry {recorded.sequence}: its stage key is not that of the code, configuration, inputs and seed "
            "that it names"
        )
    if digest_json(facts.get("config")) != facts.get("config_digest"):
        yield f"ledger entry {recorded.sequence}: its configuration is not the one of its configuration digest"


def _reuse_faults(recorded: Recorded, ran: Sequence[Recorded]) -> Iterator[str]:
    if not ran:
        yield f"ledger entry {recorded.sequence} reuses what no entry before it made"
    elif all(_digests(r.entry.outputs) != _digests(recorded.entry.outputs) for r in ran):
        yield f"ledger entry {recorded.sequence} reuses other outputs than entry {ran[-1].sequence} made"
    elif _digests(ran[-1].entry.inputs) != _digests(recorded.entry.inputs):
        yield f"ledger entry {recorded.sequence} names other inputs than entry {ran[-1].sequence} had"


def _version_faults(entries: Sequence[Recorded]) -> Iterator[str]:
    """A version is made once, from a model that a stage made."""
    seen: dict[str, int] = {}
    models: dict[str, int] = {}
    for recorded in entries:
        model = recorded.entry.output("model")
        if made(recorded) and model is not None:
            models.setdefault(model.digest, recorded.sequence)
        if recorded.entry.kind != "registration" or recorded.entry.status != "done":
            continue
        title = title_of(recorded)
        if title in seen:
            yield f"ledger entry {recorded.sequence} makes {title} a second time, after entry {seen[title]}"
        seen[title] = recorded.sequence
        source = recorded.entry.input("model")
        if model is None or source is None or source.digest != model.digest:
            yield f"ledger entry {recorded.sequence}: {title} is not the model that was to be registered"
        elif model.digest not in models:
            yield f"ledger entry {recorded.sequence}: no stage made the model of {title}"


def _promotion_faults(entries: Sequence[Recorded]) -> Iterator[Iterator[str]]:
    """A promotion follows its intent and copies its source; a rollback takes back the one before."""
    known = {r.sequence: r for r in entries}
    sources: dict[str, Recorded] = {}
    for place, recorded in enumerate(entries):
        entry = recorded.entry
        if entry.kind == "promotion" and entry.status == "done":
            yield _copy_faults(recorded, known.get(entry.facts.get("intent", 0)), sources)
        elif entry.kind == "rollback" and entry.status == "done":
            yield _rollback_faults(recorded, entries[:place])
        if entry.kind in ("registration", "promotion") and entry.status == "done":
            sources[title_of(recorded)] = recorded


def _copy_faults(recorded: Recorded, intent: Recorded | None, sources: dict[str, Recorded]) -> Iterator[str]:
    entry, title = recorded.entry, title_of(recorded)
    if intent is None or intent.entry.status != "intended" or intent.sequence >= recorded.sequence:
        yield f"ledger entry {recorded.sequence}: nobody intended the promotion to {title}"
    elif {**entry.facts, **intent.entry.facts} != entry.facts:
        yield (
            f"ledger entry {recorded.sequence}: the promotion to {title} is not the one that entry {intent.sequence} "
            "intended"
        )
    copied = str(entry.facts.get("source"))
    source = sources.get(copied)
    if source is None:
        yield f"ledger entry {recorded.sequence}: {title} was copied from {copied}, which no entry made"
        return
    for part in _PARTS:
        own, theirs = entry.output(part), source.entry.output(part)
        if own is None or theirs is None or own.digest != theirs.digest:
            yield f"ledger entry {recorded.sequence}: the {part} of {title} is not that of {title_of(source)}"


def _rollback_faults(recorded: Recorded, before: Sequence[Recorded]) -> Iterator[str]:
    facts = recorded.entry.facts
    environment = str(facts.get("environment"))
    family = str(facts.get("name")).removesuffix(f"-{environment}")
    stack = history(before, family, environment)
    if len(stack) < 2 or _digests(stack[-2].entry.outputs) != _digests(recorded.entry.outputs):
        yield f"ledger entry {recorded.sequence}: the rollback of {environment} is not to the model that held it before"


def _approval_faults(workspace: Workspace, entries: Sequence[Recorded], approvers: Path | None) -> Iterator[str]:
    """Signatures hold by the keys of then, each is used once, and what they say of the ledger is so."""
    digests = {r.sequence: r.digest for r in entries}
    used: dict[str, int] = {}
    for recorded in approvals(entries):
        checked = approval_record(workspace, entries, recorded, approvers)
        name = f"ledger entry {recorded.sequence}: the approval of {checked.approver} for {checked.environment}"
        if checked.fault:
            yield f"{name} does not hold: {checked.fault}"
        signature = str(recorded.entry.facts.get("signature"))
        if signature in used:
            yield f"{name} is that of entry {used[signature]}, replayed"
        used.setdefault(signature, recorded.sequence)
        statement = statement_of(recorded.entry.facts)
        if checked.fault and not _dated(statement, recorded):
            continue  # what cannot be read was told as such
        seen = statement.get("ledger") or {}
        if digests.get(int(seen.get("sequence", 0))) != seen.get("digest") or seen["sequence"] >= recorded.sequence:
            yield f"{name} was signed over another ledger: its entry {seen.get('sequence')} is not the one here"
        signed_at, written_at = statement.get("time", ""), recorded.time
        apart = abs(datetime.fromisoformat(signed_at) - datetime.fromisoformat(written_at))
        if apart > CLOCK_TOLERANCE:
            yield f"{name} was signed at {signed_at} but entered at {written_at}: a clock was set"


def _dated(statement: Mapping[str, Any], recorded: Recorded) -> bool:
    """Whether both times of an approval can be read, and the state of the ledger that it names."""
    try:
        times = [datetime.fromisoformat(text) for text in (statement["time"], recorded.time)]
        return len(times) == 2 and int(statement["ledger"]["sequence"]) >= 0
    except (KeyError, TypeError, ValueError):
        return False


def _digests(edges: Sequence[Edge]) -> dict[str, str]:
    return {edge.role: edge.artifact.digest for edge in edges}
