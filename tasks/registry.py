"""MLflow's registry, experiments and runs as a projection of the ledger: what they lost is put right."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.ledger import Head, Recorded, open_ledger
from tasks.lineage import ENVIRONMENTS, history, versions
from tasks.reach import alive
from tasks.tracking import client_of
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ANCHOR_TAGS = ("r1kit.ledger_sequence", "r1kit.ledger_digest")
"""Tags that name the ledger's last entry: outside it, so that an audit notices where it was cut off."""
REFUSED_SOURCE = "INVALID_PARAMETER_VALUE"
"""MLflow's code where a server takes no source outside of the run."""


def create_version(
    workspace: Workspace, full_name: str, source: str, run_id: str, tags: Mapping[str, str], head: Head
) -> str:
    """Make a version of a registered model from a copy; its number comes back.

    The tags anchor the ledger outside itself: an audit compares them, so that a cut-off ledger is noticed.
    """
    client = client_of(workspace)
    ensure_registered_model(client, full_name)
    return _create(client, full_name, source, run_id, {**tags, **_anchor_tags(head)})


def anchor(client: "MlflowClient", full_name: str, head: Head) -> None:
    """Have a registered model remember the ledger's last entry, once an entry about it is written."""
    for tag, value in _anchor_tags(head).items():
        client.set_registered_model_tag(full_name, tag, value)


def version_tags(recorded: Recorded) -> dict[str, str]:
    """The tags that the version of a registration or promotion has, but for its anchor."""
    entry, facts = recorded.entry, recorded.entry.facts
    parts = {edge.role: edge.artifact for edge in entry.outputs}
    tags = {"r1kit.model": str(facts["model"]), "r1kit.model_digest": parts["model"].digest}
    if entry.kind == "registration":
        return tags | {
            "r1kit.evidence_digest": str(facts["evidence_document_digest"]),
            "r1kit.submitter": str(facts["submitter"]),
            "r1kit.run": entry.run,
        }
    return (
        tags
        | {
            "r1kit.evidence_digest": str(facts["evidence_digest"]),
            "r1kit.intent": str(facts["intent"]),
            "r1kit.source": str(facts["source"]),
        }
        | {f"r1kit.{role}": artifact.model_dump_json() for role, artifact in parts.items()}
    )


def version_sources(recorded: Recorded) -> tuple[str, ...]:
    """Where the version of a registration or promotion may point: to its copy, or to its run."""
    model = recorded.entry.output("model")
    own = (model.uri,) if model is not None and recorded.entry.kind == "promotion" else ()
    return (*own, f"runs:/{recorded.entry.facts['mlflow_run_id']}/model")


def wanted_versions(entries: Sequence[Recorded], name: str, environment: str) -> dict[str, Recorded]:
    """Number → entry of the versions that must be there: those whose bytes `r1 gc` has not deleted."""
    kept, full_name = alive(entries), f"{name}-{environment}"
    own = {r.entry.facts["version"]: r for r in versions(entries, name) if r.entry.facts["name"] == full_name}
    models = {number: r.entry.output("model") for number, r in own.items()}
    return {n: own[n] for n, model in models.items() if model is not None and model.uri in kept[model.digest]}


def ensure_registered_model(client: "MlflowClient", full_name: str) -> None:
    """Make the registered model unless it is there."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(full_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        client.create_registered_model(full_name)


def project_aliases(workspace: Workspace, name: str = "r1kit") -> list[str]:
    """Set MLflow's aliases `current` and `previous` to what the ledger says; says what had to change."""
    ledger = open_ledger(workspace)
    entries, head, said = ledger.entries(), ledger.head(), []
    for environment in ENVIRONMENTS[1:]:
        full_name, stack = f"{name}-{environment}", history(entries, name, environment)
        if not stack:
            continue
        client = client_of(workspace)
        said += heal_versions(workspace, entries, name, environment)
        model = client.get_registered_model(full_name)
        aliases = dict(model.aliases)
        for alias, place in (("current", 1), ("previous", 2)):
            wanted = stack[-place].entry.facts["version"] if len(stack) >= place else None
            found = aliases.get(alias)
            if wanted is not None and str(found) != wanted:
                client.set_registered_model_alias(full_name, alias, wanted)
            elif wanted is None and found is not None:
                client.delete_registered_model_alias(full_name, alias)
            else:
                continue
            said.append(f"{full_name}@{alias} was {found or 'unset'}, is {wanted or 'unset'} by the ledger")
        if not _is_anchored(model, entries, full_name):
            anchor(client, full_name, head)
    return said


def _is_anchored(model: Any, entries: Sequence[Recorded], full_name: str) -> bool:
    """Whether the registered model remembers its last promotion or rollback, or an entry after it."""
    sequence, digest = (model.tags.get(tag) for tag in ANCHOR_TAGS)
    known = {str(r.sequence): r.digest for r in entries}
    events = [r for r in entries if r.entry.status == "done" and r.entry.facts.get("name") == full_name]
    return digest is not None and known.get(sequence) == digest and int(sequence) >= events[-1].sequence


def _anchor_tags(head: Head) -> dict[str, str]:
    return dict(zip(ANCHOR_TAGS, (str(head.sequence), head.digest), strict=True))


def heal_versions(workspace: Workspace, entries: Sequence[Recorded], name: str, environment: str) -> list[str]:
    """Make the registered model hold the versions that the ledger says it holds, by the same numbers; says what it did.

    MLflow gives a deleted version's number to no other, so where one is missing the registered model is made anew,
    with the tags and descriptions of those that are left.
    """
    client, full_name = client_of(workspace), f"{name}-{environment}"
    recorded = {
        r.entry.facts["version"]: r for r in versions(entries, name) if r.entry.facts["name"] == full_name
    }  # fmt: skip
    wanted = wanted_versions(entries, name, environment).keys()
    if not recorded:
        return []
    present = {str(v.version): v for v in client.search_model_versions(f"name = '{full_name}'")}
    said = _delete_undone(client, entries, present)
    highest = max(map(int, recorded))
    if wanted <= present.keys() and (wanted or present):
        return said
    if not wanted and _exists(client, full_name):
        return said
    if _exists(client, full_name):
        client.delete_registered_model(full_name)
    client.create_registered_model(full_name)
    for number in map(str, range(1, max(highest, *map(int, present or {"0": None})) + 1)):
        _recreate(client, full_name, number, recorded.get(number), present.get(number), number in wanted)
    last = recorded[str(highest)]
    anchor(client, full_name, Head(last.sequence, last.digest))
    lost = sorted(wanted - present.keys(), key=int)
    return [*said, f"{full_name} had lost {', '.join(lost) or 'all'}; its versions are back as the ledger has them"]


def restore_runs(workspace: Workspace, run_ids: set[str], experiments: set[str]) -> list[str]:
    """Take back MLflow's deletion of experiments and runs that are needed, as long as `mlflow gc` has not come by."""
    from mlflow.entities import ViewType

    client, said = client_of(workspace), []
    for experiment in client.search_experiments(view_type=ViewType.DELETED_ONLY):
        if experiment.name in experiments:
            client.restore_experiment(experiment.experiment_id)
            said.append(f"MLflow's experiment {experiment.name} had been deleted and is back")
    homes = [e.experiment_id for e in client.search_experiments() if e.name in experiments]
    token = None
    while homes:
        page = client.search_runs(homes, run_view_type=ViewType.DELETED_ONLY, page_token=token)
        for run in page:
            if run.info.run_id in run_ids:
                client.restore_run(run.info.run_id)
                said.append(f"MLflow's run {run.info.run_id} had been deleted and is back")
        token = page.token
        if not token:
            break
    return said


def _delete_undone(client: "MlflowClient", entries: Sequence[Recorded], present: dict[str, Any]) -> list[str]:
    """Delete what promotions left that were undone, but killed before they had tidied up."""
    undone = {str(r.entry.facts.get("intent")) for r in entries if r.entry.status == "undone"}
    said = []
    for number in [n for n, version in present.items() if version.tags.get("r1kit.intent") in undone]:
        version = present.pop(number)
        client.delete_model_version(version.name, number)
        said.append(f"{version.name}/{number} was left by a promotion that was undone and is deleted")
    return said


def _recreate(
    client: "MlflowClient", full_name: str, number: str, recorded: Recorded | None, old: Any | None, wanted: bool
) -> None:
    """The next number of a registered model: a version that the ledger knows, or a gap."""
    tags, source, run_id = dict(old.tags) if old else {}, old.source if old else "runs:/none/model", ""
    if recorded is not None:
        head = Head(recorded.sequence, recorded.digest)
        tags = {**tags, **version_tags(recorded), **_anchor_tags(head)}
        source, run_id = version_sources(recorded)[0], str(recorded.entry.facts["mlflow_run_id"])
    made = _create(client, full_name, source, run_id, tags)
    if made != number:
        raise ValueError(f"{full_name} was changed by another command while it was made anew; run again")
    if old is not None and old.description:
        client.update_model_version(full_name, number, old.description)
    if not wanted and old is None:
        client.delete_model_version(full_name, number)


def _create(client: "MlflowClient", full_name: str, source: str, run_id: str, tags: Mapping[str, str]) -> str:
    from mlflow.exceptions import MlflowException

    try:
        made = client.create_model_version(full_name, source, run_id or None, tags=dict(tags))
    except MlflowException as error:
        if error.error_code != REFUSED_SOURCE or not run_id:
            raise
        # A server takes no source on its own disk or behind its own proxy but a run's. The version then points to the
        # run, and the tags say where the bytes are.
        made = client.create_model_version(full_name, f"runs:/{run_id}/model", run_id, tags=dict(tags))
    return str(made.version)


def _exists(client: "MlflowClient", full_name: str) -> bool:
    return bool(client.search_registered_models(f"name = '{full_name}'"))
