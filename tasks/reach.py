"""What is needed: everything that can be reached from what environments hold, and from the latest runs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tasks.artifacts import Artifact
from tasks.ledger import Recorded
from tasks.lineage import ENVIRONMENTS, families, history, made, registrations


def holders(entries: Sequence[Recorded], name: str) -> list[Recorded]:
    """Promotions in force: those that an environment holds, or can be rolled back to."""
    return [recorded for environment in ENVIRONMENTS[1:] for recorded in history(entries, name, environment)]


def unfinished(entries: Sequence[Recorded], kind: str = "promotion") -> list[Recorded]:
    """Promotions, or deletions, that were begun and neither finished nor undone."""
    ended = {r.entry.facts.get("intent") for r in entries if r.entry.status in ("done", "undone")}
    intended = (r for r in entries if r.entry.status == "intended" and r.entry.kind == kind)
    return [r for r in intended if r.sequence not in ended]


def latest_runs(entries: Sequence[Recorded], keep: int) -> set[str]:
    """The latest recipe runs: `keep` of them all, and `keep` of each family that were registered."""
    found = set(_last(keep, (r.entry.run for r in entries if r.entry.kind == "stage")))
    for name in families(entries):
        found |= set(_last(keep, (r.entry.run for r in registrations(entries, name))))
    return found


def _last(count: int, runs: Iterable[str]) -> list[str]:
    """The last `count` different ones, by when each came last."""
    order = {run: place for place, run in enumerate(runs) if run}
    return sorted(order, key=lambda run: order[run])[-count:] if count else []


def environment_roots(entries: Sequence[Recorded]) -> list[Artifact]:
    """What environments hold, can be rolled back to, or are about to hold."""
    kept = [r for name in families(entries) for r in holders(entries, name)] + unfinished(entries)
    return [edge.artifact for r in kept for edge in (*r.entry.inputs, *r.entry.outputs)]


def run_roots(entries: Sequence[Recorded], runs: set[str]) -> list[Artifact]:
    """All that these runs took and made, and what was registered of it."""
    own = [r for r in entries if r.entry.run in runs and r.entry.kind in ("stage", "registration")]
    return [edge.artifact for r in own for edge in (*r.entry.inputs, *r.entry.outputs)]


def needed_by(entries: Sequence[Recorded], roots: Iterable[Artifact]) -> list[Artifact]:
    """Every artifact from which these were made or by which that was examined, they themselves included.

    By digest: whatever ever made the same bytes counts, and so does every place where they lie.
    """
    makers: dict[str, list[Recorded]] = defaultdict(list)
    examined: dict[str, list[Recorded]] = defaultdict(list)
    places: dict[tuple[str, str], Artifact] = {}
    for recorded in entries:
        inputs, outputs = recorded.entry.inputs, recorded.entry.outputs
        for edge in (*inputs, *outputs):
            places[edge.artifact.digest, edge.artifact.uri] = edge.artifact
        if (recorded.entry.kind == "stage" and not made(recorded)) or recorded.entry.kind in ("rollback", "deletion"):
            continue  # a rollback takes one model for another, and makes neither
        verdict = [edge for edge in inputs if _examines(recorded, edge.role)]
        for edge in verdict:
            examined[edge.artifact.digest].append(recorded)
        for edge in outputs if not verdict else ():  # two models may earn the same verdict, letter for letter
            makers[edge.artifact.digest].append(recorded)
    found: set[str] = set()
    waiting = [artifact.digest for artifact in roots]
    while waiting:
        digest = waiting.pop()
        if digest in found:
            continue
        found.add(digest)
        for recorded in (*makers[digest], *examined[digest]):
            waiting += [edge.artifact.digest for edge in (*recorded.entry.inputs, *recorded.entry.outputs)]
    return [artifact for (digest, _), artifact in places.items() if digest in found]


def _examines(recorded: Recorded, role: str) -> bool:
    """Whether the entry is a verdict on what played this part: an evaluation on its model, a validation on all."""
    entry = recorded.entry
    return (role == "model" and entry.output("evaluation") is not None) or entry.output("validation") is not None


def alive(entries: Sequence[Recorded]) -> dict[str, set[str]]:
    """Digest → addresses at which the ledger has its bytes: made there, and not deleted since by `r1 gc`."""
    found: dict[str, set[str]] = defaultdict(set)
    for recorded in entries:
        if recorded.entry.kind == "deletion":
            for edge in recorded.entry.inputs:
                if recorded.entry.status == "intended":
                    found[edge.artifact.digest].discard(edge.artifact.uri)
        elif recorded.entry.kind != "stage" or made(recorded):
            for edge in recorded.entry.outputs:
                found[edge.artifact.digest].add(edge.artifact.uri)
    return found
