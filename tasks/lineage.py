"""Questions to the ledger: what came from what, which model is meant, who holds an environment.

Everything is answered from the entries alone, without MLflow and offline.
"""

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from tasks.artifacts import Artifact
from tasks.ledger import Entry, History, Recorded, open_ledger
from tasks.workspace import Workspace

Environment = Literal["candidate", "staging", "production"]
ENVIRONMENTS: tuple[Environment, ...] = get_args(Environment)

MODEL_NAMES = {
    "base": "base",
    "zero": "zero",
    "cold_start": "dev1",
    "reason": "dev2",
    "refine": "dev3",
    "prefer": "r1",
    "rl_student": "rl-student",
}
"""What people call the model that a stage makes. Other stages' models are `<stage>-<instance>`."""

_VERSION = re.compile(r"^(?P<name>[\w.-]+)/(?P<version>\d+)$")
_ALIAS = re.compile(r"^(?P<name>[\w.-]+)@(?P<alias>[\w.-]+)$")


@dataclass(frozen=True)
class ResolvedModel:
    """The one model that a reference means."""

    reference: str
    """As it was typed."""
    model: str
    """What people call it: `r1`, `dev2`, `distill-small`."""
    artifact: Artifact
    name: str = ""
    """Registered model, `r1kit-staging`; empty for a stage's model that is not registered."""
    version: str = ""
    environment: str = ""
    run: str = ""
    """The recipe run that made it."""
    mlflow_run_id: str = ""
    evidence: Artifact | None = None
    signature: Artifact | None = None
    sequence: int = 0
    """The ledger entry that names it."""

    @property
    def title(self) -> str:
        """`r1kit-staging/3 (r1)`, or the stage model's name."""
        return f"{self.name}/{self.version} ({self.model})" if self.name else self.model


@dataclass(frozen=True)
class Ancestry:
    """Every step behind an artifact."""

    steps: tuple[Recorded, ...]
    """Producing entries, parents before children."""
    missing: tuple[Artifact, ...]
    """Inputs that no entry accounts for."""


def model_name(entry: Entry) -> str:
    """What people call the model that this stage entry makes."""
    return title_of(entry.job, entry.instance)


def title_of(job: str, instance: str) -> str:
    """What people call the model that this stage makes."""
    name = MODEL_NAMES.get(job, job)
    return f"{name}-{instance}" if instance else name


def step_title(step: Recorded) -> str:
    """`prefer → r1`, `evaluate[r1]`."""
    entry = step.entry
    name = model_name(entry) if entry.output("model") else ""
    title = f"{entry.job}[{entry.instance}]" if entry.instance else entry.job
    return f"{title} → {name}" if name and name != title else title


def made(recorded: Recorded) -> bool:
    """Whether the entry is a stage that ended well, anew or from the cache."""
    return recorded.entry.kind == "stage" and recorded.entry.status in ("ran", "reused")


def producer(entries: Sequence[Recorded], digest: str, run: str = "", uri: str = "") -> Recorded | None:
    """The stage that made these bytes: the one of recipe run `run` if there is one, else the latest.

    Where several stages made the same bytes, as a refined and a distilled model can be, it is the one that put them
    at `uri`.
    """
    makers = [r for r in History.of(entries).with_output(digest) if made(r)]
    of_run = [r for r in makers if r.entry.run == run] or makers
    there = [r for r in of_run if any(edge.artifact.uri == uri for edge in r.entry.outputs)]
    return next(reversed(there or of_run), None)


def ancestry(entries: Sequence[Recorded], artifact: Artifact, run: str = "") -> Ancestry:
    """Walk from an artifact back to the stages that have no inputs."""
    steps: dict[int, Recorded] = {}
    missing: dict[str, Artifact] = {}
    entered: set[int] = set()

    def visit(wanted: Artifact) -> None:
        maker = producer(entries, wanted.digest, run, wanted.uri)
        if maker is None:
            missing[wanted.digest] = wanted
        elif maker.sequence not in entered:
            entered.add(maker.sequence)
            for edge in maker.entry.inputs:
                visit(edge.artifact)
            steps[maker.sequence] = maker

    visit(artifact)
    return Ancestry(tuple(steps.values()), tuple(missing.values()))


def origin(entries: Sequence[Recorded], recorded: Recorded) -> Recorded:
    """The entry in which a reused stage ran; the entry itself where it ran, or where that is not known."""
    if recorded.entry.status == "ran":
        return recorded
    alike = History.of(entries).with_key(str(recorded.entry.facts.get("key", "")))
    return next((r for r in alike if r.entry.kind == "stage" and r.entry.status == "ran"), recorded)


def evaluation_of(entries: Sequence[Recorded], digest: str) -> tuple[Recorded, Artifact] | None:
    """The latest evaluation of the model with this digest."""
    for recorded in reversed(History.of(entries).with_input(digest, "model")):
        model, result = recorded.entry.input("model"), recorded.entry.output("evaluation")
        if made(recorded) and model is not None and model.digest == digest and result is not None:
            return recorded, result
    return None


def validation_of(entries: Sequence[Recorded], digest: str) -> tuple[Recorded, Artifact] | None:
    """The latest validation that let exactly these bytes pass."""
    for recorded in reversed(History.of(entries).with_input(digest)):
        result = recorded.entry.output("validation")
        if made(recorded) and result is not None:
            return recorded, result
    return None


def history(entries: Sequence[Recorded], name: str, environment: str) -> list[Recorded]:
    """The promotions in force in an environment, oldest first: the last one's model is the holder.

    A promotion adds to the list, a rollback takes the last one off.
    """
    stack: list[Recorded] = []
    for recorded in History.of(entries).of_kind("promotion", "rollback"):
        entry = recorded.entry
        if entry.status != "done" or entry.facts.get("name") != f"{name}-{environment}":
            continue
        if entry.kind == "promotion":
            stack.append(recorded)
        elif entry.kind == "rollback":
            stack = stack[:-1]
    return stack


def registrations(entries: Sequence[Recorded], name: str) -> list[Recorded]:
    """Registered candidates, oldest first."""
    own = f"{name}-candidate"
    return [r for r in History.of(entries).of_kind("registration") if r.entry.facts.get("name") == own]


def versions(entries: Sequence[Recorded], name: str) -> list[Recorded]:
    """Every entry that made a version: registrations and completed promotions."""
    own = {f"{name}-{environment}" for environment in ENVIRONMENTS}
    return [r for r in version_entries(entries) if r.entry.facts["name"] in own]


def of_kind(entries: Sequence[Recorded], *kinds: str) -> list[Recorded]:
    """The entries of these kinds."""
    return list(History.of(entries).of_kind(*kinds))


def version_entries(entries: Sequence[Recorded]) -> list[Recorded]:
    """Every entry that made a version of any registered model."""
    return [r for r in of_kind(entries, "registration", "promotion") if r.entry.status == "done"]


def families(entries: Sequence[Recorded]) -> list[str]:
    """What the registered models of the environments are called without the environment: `r1kit`."""
    return sorted({family_of(str(r.entry.facts["name"]), "") for r in version_entries(entries)})


def resolve_model(reference: str, workspace: Workspace, name: str = "r1kit") -> ResolvedModel:
    """The model that a person means.

    References: `staging`, `production`, `candidate`; `r1kit-candidate/3`; `r1kit-staging@current` or
    `@previous`; or the name of a stage's model (`base`, `zero`, `dev1`, `dev2`, `dev3`, `r1`,
    `distill-NAME`) from the latest run that has one. Raises ValueError where there is no such model.
    """
    entries = open_ledger(workspace).entries()
    name = family_of(reference, name)
    found: ResolvedModel | None = None
    if reference in ENVIRONMENTS:
        found = _by_alias(entries, name, f"{name}-{reference}", "current", reference)
    elif match := _VERSION.match(reference):
        found = _by_version(entries, name, match["name"], match["version"], reference)
    elif match := _ALIAS.match(reference):
        found = _by_alias(entries, name, match["name"], match["alias"], reference)
    else:
        found = _by_stage(entries, reference)
    if found is None:
        raise ValueError(f"there is no model {reference!r} here; {_known(entries, name)}")
    return found


def family_of(reference: str, default: str) -> str:
    """The name that a model's environments share: `r1kit` for `r1kit-staging/3`; `default` for other references."""
    full_name = re.split("[/@]", reference)[0]
    for environment in ENVIRONMENTS:
        if full_name.endswith(f"-{environment}"):
            return full_name.removesuffix(f"-{environment}")
    return default


def registered(entries: Sequence[Recorded], name: str, resolved: ResolvedModel) -> ResolvedModel | None:
    """The newest candidate with the bytes of `resolved`, or `resolved` itself if it has a version."""
    if resolved.name:
        return resolved
    for recorded in reversed(registrations(entries, name)):
        model = recorded.entry.output("model")
        if model is not None and model.digest == resolved.artifact.digest:
            return from_version(recorded, resolved.reference)
    return None


def _by_alias(
    entries: Sequence[Recorded], name: str, full_name: str, alias: str, reference: str
) -> ResolvedModel | None:
    environment = full_name.removeprefix(f"{name}-")
    registered = environment == "candidate"
    stack = registrations(entries, name) if registered else history(entries, name, environment)
    place = {"current": 1, "latest": 1, "previous": 2}.get(alias)
    if place is None or len(stack) < place:
        return None
    return from_version(stack[-place], reference)


def _by_version(
    entries: Sequence[Recorded], name: str, full_name: str, version: str, reference: str
) -> ResolvedModel | None:
    for recorded in versions(entries, name):
        if recorded.entry.facts["name"] == full_name and recorded.entry.facts["version"] == version:
            return from_version(recorded, reference)
    return None


def _by_stage(entries: Sequence[Recorded], reference: str) -> ResolvedModel | None:
    seen = History.of(entries)
    jobs = [job for job in seen.jobs() if title_of(*job) == reference]
    latest_first = heapq.merge(*(seen.of_job(*job) for job in jobs), key=lambda r: -r.sequence)
    for recorded in latest_first:
        artifact = recorded.entry.output("model")
        if made(recorded) and artifact is not None:
            mlflow_run_id = origin(entries, recorded).entry.facts.get("mlflow_run_id", "")
            return ResolvedModel(
                reference=reference,
                model=reference,
                artifact=artifact,
                run=recorded.entry.run,
                mlflow_run_id=mlflow_run_id,
                sequence=recorded.sequence,
            )
    return None


def from_version(recorded: Recorded, reference: str) -> ResolvedModel:
    """The model of a registration or promotion."""
    entry, facts = recorded.entry, recorded.entry.facts
    artifact = entry.output("model")
    assert artifact is not None, "a version's entry has its model"
    return ResolvedModel(
        reference=reference,
        model=facts["model"],
        artifact=artifact,
        name=facts["name"],
        version=facts["version"],
        environment=facts["environment"],
        run=entry.run,
        mlflow_run_id=facts["mlflow_run_id"],
        evidence=entry.output("evidence"),
        signature=entry.output("signature"),
        sequence=recorded.sequence,
    )


def _known(entries: Sequence[Recorded], name: str) -> str:
    """A sentence on the models that there are."""
    seen = History.of(entries)
    stages = {
        title_of(*job) for job in seen.jobs() if any(made(r) and r.entry.output("model") for r in seen.of_job(*job))
    }
    numbered = {f"{r.entry.facts['name']}/{r.entry.facts['version']}" for r in versions(entries, name)}
    held = {environment for environment in ENVIRONMENTS[1:] if history(entries, name, environment)}
    known = [*sorted(stages), *sorted(numbered), *sorted(held)]
    return f"known models: {', '.join(known)}" if known else "no model was made yet, start with `r1 run`"
