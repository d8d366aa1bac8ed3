"""The folders of the recipe's runs beside the ledger: what a run says of itself is what the ledger has."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.audit.people import title_of
from tasks.ledger import Recorded
from tasks.lineage import version_entries
from tasks.stage import stage_name
from tasks.summary import StageSummary, Summary, read_summary
from tasks.workspace import Workspace, is_held


def look_at_runs(workspace: Workspace, entries: Sequence[Recorded]) -> tuple[list[str], list[str], int]:
    """Problems, notes, and how many runs there are."""
    problems: list[str] = []
    notes: list[str] = []
    folders = {path.name: path for path in sorted(workspace.runs_dir.glob("2*")) if path.is_dir()}
    closed = {r.entry.run: r for r in entries if r.entry.kind == "run"}
    of_run: dict[str, list[Recorded]] = {}
    for recorded in entries:
        if recorded.entry.kind == "stage":
            of_run.setdefault(recorded.entry.run, []).append(recorded)
    homeless = of_run.keys() - folders.keys() - closed.keys()  # where a closing entry is, its artifacts are missed
    problems += [f"the run {run} of ledger entry {of_run[run][0].sequence} has no folder" for run in sorted(homeless)]
    for run, folder in folders.items():
        try:
            summary = read_summary(folder)
        except ValueError as error:
            problems.append(f"run {run}: {error}")
            continue
        closing = closed.get(run)
        if closing is None and summary.status != "running":
            problems.append(f"run {run} says that it is {summary.status}, but the ledger has no entry of its end")
        elif closing is None and not is_held(workspace):
            notes.append(f"run {run} was killed: nothing seals its summary")
        problems += _summary_faults(folder, summary, of_run.get(run, []), closing)
        problems += _registration_faults(summary, entries)
    return problems, notes, len(folders)


def _summary_faults(
    folder: Path, summary: Summary, stages: Sequence[Recorded], closing: Recorded | None
) -> Iterator[str]:
    if summary.run_id != folder.name:
        yield f"run {folder.name}: its summary is that of run {summary.run_id}"
        return
    told = {stage.name: stage for stage in summary.stages if stage.status in ("ran", "cached")}
    ended = {}
    for recorded in stages:
        entry = recorded.entry
        if closing is not None and recorded.sequence > closing.sequence:
            yield f"ledger entry {recorded.sequence} adds {entry.job} to run {folder.name} after its end"
        if entry.status != "failed":
            ended[stage_name(entry.job, entry.instance)] = recorded
    for name, stage in told.items():
        if name in ended:
            yield from _stage_faults(folder.name, stage, ended[name])
        elif stage.stage != "register":
            yield f"run {folder.name}: its summary has {name}, of which the ledger has no entry"
    for name in ended.keys() - told.keys() if closing is not None else ():
        yield f"run {folder.name}: ledger entry {ended[name].sequence} has {name}, which its summary does not"


def _stage_faults(run: str, stage: StageSummary, recorded: Recorded) -> Iterator[str]:
    entry, facts = recorded.entry, recorded.entry.facts
    compared = {
        "key": (stage.key, facts.get("key")),
        "code_digest": (stage.code_digest, facts.get("code_digest")),
        "mlflow_run_id": (stage.mlflow_run_id, facts.get("mlflow_run_id")),
        "inputs": (stage.inputs, {edge.role: edge.artifact.digest for edge in entry.inputs}),
        "outputs": (
            {role: output.model_dump() for role, output in stage.outputs.items()},
            {edge.role: edge.artifact.model_dump() for edge in entry.outputs},
        ),
        "metrics": (
            {name: value for name, value in stage.metrics.items() if value is not None},
            {name: value for name, value in facts.get("metrics", {}).items() if not isinstance(value, str)},
        ),
        "status": ({"ran": "ran", "cached": "reused"}.get(stage.status), entry.status),
    }
    for name, (said, known) in compared.items():
        if said != known:
            yield f"run {run}: its summary has another {name} of {stage.name} than ledger entry {recorded.sequence}"


def _registration_faults(summary: Summary, entries: Sequence[Recorded]) -> Iterator[str]:
    if summary.registered is None:
        return
    title = f"{summary.registered.name}/{summary.registered.version}"
    if title not in {title_of(r) for r in version_entries(entries)}:
        yield f"run {summary.run_id}: its summary registered {title}, of which the ledger has no entry"
