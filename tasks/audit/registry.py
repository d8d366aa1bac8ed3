"""MLflow beside the ledger: registered models, versions, tags, aliases and tracked runs, each difference named.

The ledger leads: what MLflow says otherwise is a difference. Only what a killed promotion left is put right.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.audit.people import title_of
from tasks.ledger import Recorded, open_ledger
from tasks.lineage import ENVIRONMENTS, history, of_kind, versions
from tasks.promotion import PROMOTED, Busy, environment_lock, project_aliases, recover, unfinished
from tasks.registry import ANCHOR_TAGS, anchor, version_sources, version_tags, wanted_versions
from tasks.stage import flat
from tasks.tracking import KEY_TAG, MAX_PARAM_CHARACTERS, client_of
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PREFIX = "r1kit."
_PAGE = 1000


@dataclass(frozen=True)
class Registry:
    """What MLflow's registry holds."""

    models: Mapping[str, Any]
    """Full name → registered model."""
    versions: Mapping[str, Any]
    """`r1kit-staging/2` → version."""


@dataclass
class Differences:
    """How the registry differs from the ledger, one sentence each."""

    projected: list[str] = field(default_factory=list)
    """In what follows the ledger and can be made to again: aliases, and tags that remember how far."""
    others: list[str] = field(default_factory=list)


def reconcile(
    workspace: Workspace, name: str, entries: Sequence[Recorded], *, whole: bool = True
) -> tuple[list[str], list[str]]:
    """Compare a family's registered models with the ledger, then finish what was cut off and put aliases right.

    Nothing is put right where the ledger is not whole, or the registry lacks what it tells of: that is evidence.

    Args:
        entries: The ledger's.
        whole: Whether its chain holds.

    Returns:
        What was put right, and every difference that was found before it was.
    """
    if not versions(entries, name) and not _unfinished(entries, name):
        return [], []
    repaired: list[str] = []
    differences = Differences()
    try:
        with environment_lock(workspace):
            registry = read_registry(client_of(workspace))
            cut_off = list(_cut_off(registry, entries, name))
            if whole and not cut_off and _unfinished(entries, name):
                repaired = recover(workspace, name)
                registry, entries = read_registry(client_of(workspace)), open_ledger(workspace).entries()
            differences = compare(registry, entries, name)
            differences.others += cut_off
            behind = any(_is_behind(registry.models.get(full_name), entries) for full_name in _names(name))
            if whole and not differences.others and (differences.projected or behind):
                repaired += project_aliases(workspace, name)
                _anchor_candidates(registry, workspace, name)
    except Busy:
        pass  # what is being changed cannot be compared; the next audit can
    return repaired, [*differences.others, *differences.projected]


def read_registry(client: "MlflowClient") -> Registry:
    """All registered models and their versions."""
    models = {m.name: m for m in _pages(lambda token: client.search_registered_models(page_token=token))}
    found = _pages(lambda token: client.search_model_versions(page_token=token))
    return Registry(models, {f"{v.name}/{v.version}": v for v in found})


def compare(registry: Registry, entries: Sequence[Recorded], name: str) -> Differences:
    """Every difference between a family's registered models in MLflow and the ledger."""
    differences = Differences()
    for full_name in _names(name):
        made = {title_of(r): r for r in versions(entries, name) if r.entry.facts["name"] == full_name}
        found = {title: v for title, v in registry.versions.items() if v.name == full_name}
        if full_name not in registry.models:
            differences.others += [f"the registered model {full_name} is gone from MLflow"] if made else []
            continue
        wanted = {title_of(r) for r in wanted_versions(entries, name, full_name.removeprefix(f"{name}-")).values()}
        for title in wanted - found.keys():
            differences.others.append(f"{title} is in the ledger but not in MLflow")
        for title, version in found.items():
            if title in made:
                differences.others += _version_faults(title, version, made[title])
            else:
                differences.others.append(f"{title} is in the registry but not in the ledger")
        differences.projected += _model_faults(registry.models[full_name], entries, name)
    return differences


def _pages(ask: Callable[[str | None], Any]) -> Iterator[Any]:
    """Everything of an answer that comes in pages."""
    token: str | None = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _names(name: str) -> list[str]:
    return [f"{name}-{environment}" for environment in ENVIRONMENTS]


def _is_behind(model: Any | None, entries: Sequence[Recorded]) -> bool:
    """Whether a registered model does not remember its last change yet."""
    return model is not None and _pending(model.tags.get(ANCHOR_TAGS[0]), _events(entries, model.name))


def _cut_off(registry: Registry, entries: Sequence[Recorded], name: str) -> Iterator[str]:
    """Tags that name ledger entries which are no longer there: the ledger was cut off or rewritten."""
    known = {str(r.sequence): r.digest for r in entries}
    for title, version in registry.versions.items():
        sequence, digest = (version.tags.get(tag, "") for tag in ANCHOR_TAGS)
        if version.name in _names(name) and sequence != "0" and (not digest or known.get(sequence) != digest):
            yield f"{title} was made after ledger entry {sequence or '(its tag is gone)'}, which is gone or altered"
    for full_name in _names(name):
        tags = dict(registry.models[full_name].tags) if full_name in registry.models else {}
        sequence, digest = (tags.get(tag) for tag in ANCHOR_TAGS)
        if sequence is not None and digest is not None and known.get(sequence) != digest:
            yield f"{full_name} was last changed after ledger entry {sequence}, which is gone or altered"


def _version_faults(title: str, version: Any, recorded: Recorded) -> Iterator[str]:
    facts = recorded.entry.facts
    yield from _tag_faults(title, version.tags, version_tags(recorded), ANCHOR_TAGS)
    if version.run_id != facts["mlflow_run_id"]:
        yield f"{title} belongs to MLflow run {version.run_id}, the ledger says {facts['mlflow_run_id']}"
    if version.source not in version_sources(recorded):
        yield f"{title} has the source {version.source}, not its own copy"


def _tag_faults(
    title: str, tags: Mapping[str, str], expected: Mapping[str, str], others: Sequence[str] = ()
) -> Iterator[str]:
    for tag, value in expected.items():
        if tag not in tags:
            yield f"{title}: the tag {tag} is gone, the ledger says {value!r}"
        elif tags[tag] != value:
            yield f"{title}: the tag {tag} is {tags[tag]!r}, the ledger says {value!r}"
    for tag in tags:
        if tag.startswith(PREFIX) and tag not in expected and tag not in others:
            yield f"{title}: the tag {tag} is {tags[tag]!r}, of which the ledger knows nothing"


def _model_faults(model: Any, entries: Sequence[Recorded], name: str) -> Iterator[str]:
    """Aliases follow the ledger; the registered model remembers how far."""
    full_name, environment = model.name, model.name.removeprefix(f"{name}-")
    aliases = {alias: str(version) for alias, version in dict(model.aliases).items()}
    gone = " and ".join(tag for tag in ANCHOR_TAGS if tag not in model.tags)
    events = _events(entries, full_name)
    promoted = environment in PROMOTED
    wanted = _wanted(history(entries, name, environment)) if promoted else {}
    if promoted and _pending(model.tags.get(ANCHOR_TAGS[0]), events):
        before = [r for r in entries if r.sequence < events[-1].sequence]
        if aliases == _wanted(history(before, name, environment)):
            return  # the last change was cut off before the aliases followed it
    if events and gone:
        yield f"{full_name}: the tag {gone} is gone, by which it remembers the ledger"
    for alias in sorted(wanted.keys() | aliases.keys()):
        if wanted.get(alias) != aliases.get(alias):
            yield (
                f"{full_name}@{alias} is {aliases.get(alias, 'unset')} in MLflow, "
                f"but {wanted.get(alias, 'unset')} by the ledger"
            )


def _events(entries: Sequence[Recorded], full_name: str) -> list[Recorded]:
    """What changed a registered model, oldest first."""
    changed = of_kind(entries, "registration", "promotion", "rollback")
    return [r for r in changed if r.entry.status == "done" and r.entry.facts.get("name") == full_name]


def _pending(sequence: str | None, events: Sequence[Recorded]) -> bool:
    """Whether the last promotion or rollback was cut off before the aliases followed it."""
    if not events:
        return False
    if sequence is None:
        return len(events) == 1
    return sequence.isdigit() and int(sequence) < events[-1].sequence


def _wanted(stack: Sequence[Recorded]) -> dict[str, str]:
    """The aliases that an environment's promotions in force ask for."""
    places = (("current", 1), ("previous", 2))
    return {alias: str(stack[-place].entry.facts["version"]) for alias, place in places if len(stack) >= place}


def _unfinished(entries: Sequence[Recorded], name: str) -> list[Recorded]:
    return [r for r in unfinished(entries) if r.entry.facts.get("name") in _names(name)]


def _anchor_candidates(registry: Registry, workspace: Workspace, name: str) -> None:
    """Have the candidates' model remember the ledger again, where a kill or somebody took that."""
    full_name = f"{name}-candidate"
    model = registry.models.get(full_name)
    if model is not None and not model.tags.keys() >= set(ANCHOR_TAGS):
        anchor(client_of(workspace), full_name, open_ledger(workspace).head())


def run_faults(workspace: Workspace, entries: Sequence[Recorded]) -> tuple[list[str], int]:
    """Every difference between the tracked runs in MLflow and the ledger, and how many runs there are."""
    runs = {run.info.run_id: run for run in _all_runs(client_of(workspace))}
    problems: list[str] = []
    keys = {str(r.entry.facts.get("key")) for r in entries if r.entry.kind == "stage" and r.entry.status == "ran"}
    named: set[str] = set()
    for recorded in entries:
        entry, run_id = recorded.entry, str(recorded.entry.facts.get("mlflow_run_id", ""))
        if not run_id or entry.status not in ("ran", "failed", "done") or entry.kind == "rollback":
            continue
        title = f"the MLflow run {run_id} of ledger entry {recorded.sequence} ({entry.job})"
        named.add(run_id)
        if run_id not in runs:
            problems.append(f"{title} is gone")
        else:
            problems += _tracked_faults(title, runs[run_id], recorded)
    for run_id, run in runs.items():
        stage, key = run.data.tags.get("r1kit.stage", ""), run.data.tags.get(KEY_TAG)
        if run_id not in named and run.info.status == "FINISHED" and key and key not in keys:
            problems.append(f"the MLflow run {run_id} of {stage} ended well, but the ledger knows nothing of it")
    return problems, len(runs)


def _all_runs(client: "MlflowClient") -> Iterator[Any]:
    from mlflow.entities import ViewType

    homes = [e.experiment_id for e in client.search_experiments(view_type=ViewType.ALL)]
    if homes:
        yield from _pages(
            lambda token: client.search_runs(homes, run_view_type=ViewType.ALL, max_results=_PAGE, page_token=token)
        )


def _tracked_faults(title: str, run: Any, recorded: Recorded) -> Iterator[str]:
    entry, facts, tags = recorded.entry, recorded.entry.facts, run.data.tags
    if run.info.lifecycle_stage != "active":
        yield f"{title} was deleted"
    wanted = "FAILED" if entry.status == "failed" else "FINISHED"
    if run.info.status != wanted:
        yield f"{title} is {run.info.status}, not {wanted}"
    if entry.kind != "stage":
        return
    expected = {
        KEY_TAG: str(facts.get("key")),
        "r1kit.stage": f"{entry.job}-{entry.instance}" if entry.instance else entry.job,
        "r1kit.code_digest": str(facts.get("code_digest")),
        "r1kit.variant": entry.instance,
    }
    yield from _tag_faults(title, tags, expected, ("r1kit.run",))
    if "r1kit.run" not in tags:
        yield f"{title}: the tag r1kit.run is gone"
    yield from _parameter_faults(title, run.data.params, flat(facts.get("config", {})))
    for name, value in facts.get("metrics", {}).items():
        found = run.data.metrics.get(f"final_{name}")
        if entry.status == "ran" and isinstance(value, (int, float)) and found != float(value):
            yield f"{title}: the metric final_{name} is {found}, the ledger says {value}"


def _parameter_faults(title: str, said: Mapping[str, str], settings: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(settings.keys() | said.keys()):
        if name not in said:
            yield f"{title}: the parameter {name} is gone, the ledger says {settings[name]!r}"
        elif name not in settings:
            yield f"{title}: the parameter {name} is {said[name]!r}, of which the ledger knows nothing"
        elif not _says(said[name], settings[name]):
            yield f"{title}: the parameter {name} is {said[name]!r}, the ledger says {settings[name]!r}"


def _says(said: str, value: Any) -> bool:
    """Whether a parameter's text is of that value. Within lists, the ledger has sorted the keys of mappings."""
    text = str(value)[:MAX_PARAM_CHARACTERS]
    if said == text:
        return True
    if not isinstance(value, list) or len(said) >= MAX_PARAM_CHARACTERS:  # what was cut off can only be as long
        return isinstance(value, list) and len(said) == len(text)
    try:
        return ast.literal_eval(said) == value
    except (ValueError, SyntaxError):
        return False
