"""Can a model be rebuilt? What each step would need; and running its recipe again, from the pins, bit against bit."""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.artifacts import Artifact, digest_directory
from tasks.audit.data import Look, whereabouts
from tasks.audit.records import RebuildableRecord, RebuildReport, RebuiltStep
from tasks.code import code_digest
from tasks.ledger import Recorded, environment, open_ledger
from tasks.lineage import Ancestry, ancestry, family_of, of_kind, registered, resolve_model, step_title
from tasks.lineage import origin as origin_of
from tasks.store import fetch
from tasks.workspace import SETTINGS_FILE, Workspace

if TYPE_CHECKING:
    from r1kit.config import Config
    from tasks.stage import StageContext, StageOutput

SURROUNDINGS = ("platform", "python", "processor", "cores", "accelerators", "lock_digest")
"""Of the recorded environment, what may change bits."""


def rebuildable(
    workspace: Workspace, entries: Sequence[Recorded], behind: Ancestry, look: Look
) -> Iterator[RebuildableRecord]:
    """What each step of a lineage would need and is not there, and what is no longer as it was."""
    for step in behind.steps:
        ran = origin_of(entries, step)
        missing = [f"the input {edge.role}: {wrong}" for edge in step.entry.inputs if (wrong := look(edge.artifact))]
        settings = settings_of(workspace, entries, ran, step)
        if not settings.is_file():
            missing.append(f"its settings {settings} are missing")
        yield RebuildableRecord(title=step_title(step), missing=tuple(missing), differs=tuple(departures(ran)))


def settings_of(workspace: Workspace, entries: Sequence[Recorded], *recorded: Recorded) -> Path:
    """The resolved settings of the first of these entries' runs that still has them: in its folder, else in the
    evidence of a model that it registered."""
    files = [workspace.runs_dir / r.entry.run / SETTINGS_FILE for r in recorded]
    return next((file for file in (*files, *_in_evidence(workspace, entries, recorded)) if file.is_file()), files[0])


def _in_evidence(workspace: Workspace, entries: Sequence[Recorded], recorded: Sequence[Recorded]) -> Iterator[Path]:
    runs = {r.entry.run for r in recorded}
    for registration in of_kind(entries, "registration"):
        evidence = registration.entry.output("evidence")
        if registration.entry.run in runs and evidence is not None:
            with contextlib.suppress(ValueError):  # gone or altered, which the audit tells as such
                yield fetch(evidence, workspace) / SETTINGS_FILE


def departures(ran: Recorded) -> Iterator[str]:
    """What here is no longer as it was when a step ran, so that other bits may come of it."""
    facts = ran.entry.facts
    here = code_digest(f"tasks.{ran.entry.job}")
    if facts.get("code_digest") != here:
        commit = str(facts.get("environment", {}).get("commit", ""))
        where = f"; it ran at commit {commit[:12]}" if commit else ""
        yield f"the code moved: {str(facts.get('code_digest'))[:19]}…, here {here[:19]}…{where}"
    then, now = facts.get("environment", {}), environment()
    for name in SURROUNDINGS:
        if name in then and then[name] != now.get(name):
            yield f"{name.replace('_', ' ')} was {then[name]}, here {now.get(name)}"
    if any(value for name, value in facts.get("metrics", {}).items() if name.endswith("resumed_elsewhere")):
        yield "it was resumed in other surroundings, so it never claimed its bits"


@dataclass
class Rebuild:
    """One rebuilding: the workspace, what came of it so far."""

    workspace: Workspace
    entries: Sequence[Recorded]
    scratch: Path
    say: Callable[[str], None]
    made: dict[str, Path] = field(default_factory=dict)
    """Digest → where a rebuilt output lies."""


def rebuild(
    workspace: Workspace,
    reference: str,
    *,
    name: str = "r1kit",
    stages: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> RebuildReport:
    """Run the recipe behind a model again, in a scratch directory, and compare every output's digest.

    Each step gets the recorded inputs, configuration and seed, on as many threads as then. Nothing is written to the
    ledger, MLflow, or DVC.

    Args:
        stages: Only the steps of these stages; all, where it is empty.

    Raises:
        ValueError: There is no such model, or its lineage has no such stage.
    """
    entries, name = open_ledger(workspace).entries(), family_of(reference, name)
    model = resolve_model(reference, workspace, name)
    model = registered(entries, name, model) or model
    steps = ancestry(entries, model.artifact, model.run).steps
    known = {step.entry.job for step in steps}
    if strange := sorted(set(stages) - known):
        raise ValueError(f"no step of {model.title} is a {strange[0]}; its stages are {', '.join(sorted(known))}")
    workspace.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.work_dir, prefix="rebuild-") as scratch:
        work = Rebuild(workspace, entries, Path(scratch), say)
        rebuilt = [_rebuild_step(work, step) for step in steps if not stages or step.entry.job in stages]
    return RebuildReport(reference=reference, steps=tuple(rebuilt))


def _rebuild_step(work: Rebuild, step: Recorded) -> RebuiltStep:
    ran, title, started = origin_of(work.entries, step), step_title(step), time.monotonic()
    work.say(f"{title}: runs again")
    differs = list(departures(ran))
    try:
        config = _config(work, ran, step)
        places = _run(work, ran, config)
        differs += _other_settings(ran, config)
    except Exception as error:  # noqa: BLE001 - whatever stops a stage is what there is to tell of it
        seconds = time.monotonic() - started
        told = str(error).strip().splitlines() or [type(error).__name__]
        return RebuiltStep(
            title=title, identical=None, outputs={}, differs=tuple(differs), seconds=seconds, error=told[-1]
        )
    outputs = {}
    for edge in step.entry.outputs:
        place = places.get(edge.role)
        found = digest_directory(place) if place is not None else ""
        outputs[edge.role] = {"recorded": edge.artifact.digest, "rebuilt": found}
        if place is not None and found == edge.artifact.digest:
            work.made[found] = place
    identical = all(pair["recorded"] == pair["rebuilt"] for pair in outputs.values())
    seconds = time.monotonic() - started
    work.say(f"{title}: {'the same bits' if identical else 'other bits'} after {seconds:.0f} s")
    return RebuiltStep(title=title, identical=identical, outputs=outputs, differs=tuple(differs), seconds=seconds)


def _config(work: Rebuild, *recorded: Recorded) -> "Config":
    import yaml

    from r1kit.config import Config

    file = settings_of(work.workspace, work.entries, *recorded)
    try:
        return Config.model_validate(yaml.safe_load(file.read_text()))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ValueError(f"the settings {file} cannot be read: {str(error).splitlines()[0]}") from None


def _other_settings(ran: Recorded, config: "Config") -> Iterator[str]:
    from tasks.stage import plan_stage

    plan = plan_stage(ran.entry.job, config, {}, ran.entry.instance)
    if plan.slice != ran.entry.facts.get("config") or plan.seed != ran.entry.facts.get("seed"):
        yield "its settings are no longer those of the ledger"


def _run(work: Rebuild, ran: Recorded, config: "Config") -> Mapping[str, Path]:
    """Role → where the outputs of a step that ran again lie."""
    workdir = work.scratch / f"{ran.sequence}"
    workdir.mkdir()
    if ran.entry.job == "data":
        return _prepare(work, config, workdir)
    threads = int(ran.entry.facts.get("threads", 0)) or config.runtime.threads or len(os.sched_getaffinity(0))
    output = _body(ran.entry.job, _context(work, ran, config, workdir), config, threads)
    return {role: path for role, (_, path) in output.outputs.items()}


def _prepare(work: Rebuild, config: "Config", workdir: Path) -> Mapping[str, Path]:
    """The prepared files, made beside those that DVC pins."""
    from r1kit.data.prepare import prepare
    from tasks.data import files_of
    from tasks.machine import verifier_pool

    with verifier_pool(config.runtime) as pool:
        prepare(
            config.data, workdir, cache_dir=work.workspace.cache_dir, pool=pool, say=work.say,
            log=lambda step, total, metrics: None,
        )  # fmt: skip
    return files_of(workdir)


def _context(work: Rebuild, ran: Recorded, config: "Config", workdir: Path) -> "StageContext":
    from tasks.stage import StageContext, stage_name

    entry, title = ran.entry, stage_name(ran.entry.job, ran.entry.instance)
    return StageContext(
        name=title,
        variant=entry.instance,
        config=config,
        seed=int(entry.facts["seed"]),
        key=str(entry.facts["key"]),
        workdir=workdir,
        cache_dir=work.workspace.cache_dir,
        inputs={edge.role: _input(work, edge.artifact) for edge in entry.inputs},
        digests={edge.role: edge.artifact.digest for edge in entry.inputs},
        log=lambda step, total, metrics: None,
        say=lambda line: work.say(f"{title}: {line}"),
    )


def _input(work: Rebuild, artifact: Artifact) -> Path:
    """The recorded bytes; where they are lost, the rebuilt ones if they are the same."""
    try:
        return fetch(whereabouts(artifact, work.workspace)[0], work.workspace)
    except ValueError:
        if artifact.digest in work.made:
            return work.made[artifact.digest]
        raise


def _body(stage: str, context: "StageContext", config: "Config", threads: int) -> "StageOutput":
    """Run a stage's body as the recipe does: in a process of its own, or in as many as then."""
    from tasks.isolated import Processes
    from tasks.launch import launch, launched

    if launched(stage, config):
        runtime = config.runtime
        return launch(stage, context, processes=runtime.processes, launcher=runtime.launcher, threads=threads)
    processes = Processes()
    with contextlib.ExitStack() as stack:
        stack.callback(processes.stop)
        return processes.call(stage, context, threads=threads)
