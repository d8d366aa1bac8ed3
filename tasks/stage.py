"""What a stage is: its key, its surroundings while it runs, and what becomes of what it made."""

import importlib
import inspect
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic_core import to_jsonable_python

from r1kit.schema import Section, shaping
from tasks.artifacts import Artifact, describe, digest_json, fault
from tasks.code import code_digest
from tasks.ledger import open_ledger, stage_entry
from tasks.notes import StageNotes
from tasks.store import fetch, publish
from tasks.tracking import TrackingRun, open_run
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from r1kit.config import Config

STAGES = (
    "data", "validate", "base", "zero", "cold_start", "reason", "reject", "refine", "reward_models", "prefer",
    "distill", "rl_student", "evaluate", "register",
)  # fmt: skip
"""All stages, in the order in which `--from` and `--until` count them."""

Log = Callable[[int, int, Mapping[str, float]], None]
"""Step (from 1), total steps, metrics."""


@dataclass(frozen=True)
class StageContext:
    """What a stage's body is given."""

    name: str
    """`zero`; with a variant `evaluate-dev1`."""
    variant: str
    """Which student, which model evaluated; empty for the others."""
    config: "Config"
    """The whole resolved configuration; a body reads what its `config_slice` names."""
    seed: int
    key: str
    """The stage key."""
    workdir: Path
    """Checkpoints and outputs; survives kills, removed once the stage is finished."""
    cache_dir: Path
    """What can be fetched again: model files."""
    inputs: Mapping[str, Path]
    """Role → verified local path."""
    digests: Mapping[str, str]
    """Role → digest of that input."""
    log: Log
    say: Callable[[str], None]
    """A line for people."""


@dataclass(frozen=True)
class StageOutput:
    """What a stage's body gives back."""

    outputs: Mapping[str, tuple[str, Path]]
    """Role → (kind of artifact, where it lies). What lies outside the workdir is left there."""
    metrics: Mapping[str, float]
    details: Mapping[str, Any] = field(default_factory=dict)
    """Anything else for the report, as JSON: transcripts, tables."""


class StageBody(Protocol):
    """What `tasks/<stage>.py` exposes. `config_slice` may take the variant too."""

    def config_slice(self, config: "Config") -> Mapping[str, Any]:
        """What of the configuration the result depends on."""
        ...

    def run(self, context: StageContext) -> StageOutput:
        """Do the work."""
        ...


class StageResult(Section):
    """A finished stage, as Prefect keeps it."""

    stage: str
    variant: str = ""
    key: str
    code_digest: str
    config_digest: str
    seed: int
    inputs: dict[str, Artifact]
    outputs: dict[str, Artifact]
    metrics: dict[str, float]
    seconds: float
    mlflow_run_id: str = ""

    @property
    def name(self) -> str:
        """`evaluate-dev1`."""
        return stage_name(self.stage, self.variant)


class Observer(Protocol):
    """Who watches the stages."""

    def step(self, name: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """A stage made a step."""
        ...

    def say(self, name: str, message: str) -> None:
        """A stage says something."""
        ...


@dataclass(frozen=True)
class StagePlan:
    """A stage about to run, with everything that its result depends on."""

    stage: str
    variant: str
    config: "Config"
    slice: Mapping[str, Any]
    """Its part of the configuration that shapes the result, as JSON."""
    code: str
    """Digest of the code that it can reach."""
    inputs: Mapping[str, Artifact]
    seed: int
    key: str

    @property
    def name(self) -> str:
        """`evaluate-dev1`."""
        return stage_name(self.stage, self.variant)


def stage_name(stage: str, variant: str = "") -> str:
    """`zero`, `distill-small`."""
    return f"{stage}-{variant}" if variant else stage


def body_of(stage: str) -> StageBody:
    """The module of a stage."""
    return cast(StageBody, importlib.import_module(f"tasks.{stage}"))


def plan_stage(stage: str, config: "Config", inputs: Mapping[str, Artifact], variant: str = "") -> StagePlan:
    """Compute a stage's key: sha256 of stage, code, configuration slice, input digests and seed."""
    slicer: Callable[..., Any] = body_of(stage).config_slice
    takes_variant = len(inspect.signature(slicer).parameters) > 1
    raw = slicer(config, variant) if takes_variant else slicer(config)
    slice_ = to_jsonable_python(shaping(raw))
    code = code_digest(f"tasks.{stage}")
    key = digest_json(
        {
            "stage": stage,
            "variant": variant,
            "code": code,
            "config": slice_,
            "inputs": {role: artifact.digest for role, artifact in inputs.items()},
            "seed": config.seed,
        }
    )
    return StagePlan(stage, variant, config, slice_, code, dict(inputs), config.seed, key)


def run_stage(
    plan: StagePlan,
    workspace: Workspace,
    observer: Observer,
    run_id: str,
    *,
    prefect_run_id: str = "",
    call: Callable[[StageContext], StageOutput] | None = None,
    threads: int = 0,
) -> StageResult:
    """Run a stage: verified inputs, a tracked run, the body, published outputs, an entry in the ledger.

    Args:
        threads: Torch threads of each of its processes, for the ledger; 0 where that is not known.
        call: Runs the body somewhere else, in a process of its own; None means here.
    """
    started = time.monotonic()
    paths = {role: fetch(artifact, workspace) for role, artifact in plan.inputs.items()}
    workdir = workdir_of(plan.key, workspace)
    workdir.mkdir(parents=True, exist_ok=True)
    notes = StageNotes(plan.key, workspace)
    tags = {"r1kit.run": run_id, "r1kit.code_digest": plan.code, "r1kit.variant": plan.variant}
    tracked = open_run(workspace, plan.name, key=plan.key, tags=tags)
    tracked.log_params(flat(plan.slice))
    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        observer.say(plan.name, message)

    def log(step: int, total: int, metrics: Mapping[str, float]) -> None:
        observer.step(plan.name, step, total, metrics)
        notes.step(step, total, metrics)
        tracked.log_metrics(step, metrics)

    context = StageContext(
        name=plan.name,
        variant=plan.variant,
        config=plan.config,
        seed=plan.seed,
        key=plan.key,
        workdir=workdir,
        cache_dir=workspace.cache_dir,
        inputs=paths,
        digests={role: artifact.digest for role, artifact in plan.inputs.items()},
        log=log,
        say=say,
    )
    try:
        output = call(context) if call else body_of(plan.stage).run(context)
        outputs = _publish(output, workdir, tracked)
    except Exception as error:  # whatever it was, the ledger has it before it is raised again
        notes.close()
        _record(plan, workspace, run_id, "failed", tracked.run_id, error=str(error), prefect=prefect_run_id, said=said,
                threads=threads)  # fmt: skip
        tracked.close("FAILED")
        raise
    except BaseException:
        notes.close()  # the tracked run is left open, and the resumed stage goes on with it; MLflow itself may have
        raise  # been interrupted while it was writing, so nothing more is written to it
    notes.finish(output.details)
    metrics = {name: float(value) for name, value in output.metrics.items()}
    tracked.log_metrics(0, {f"final_{name}": value for name, value in metrics.items()})
    tracked.close()
    seconds = time.monotonic() - started
    result = StageResult(
        stage=plan.stage,
        variant=plan.variant,
        key=plan.key,
        code_digest=plan.code,
        config_digest=digest_json(plan.slice),
        seed=plan.seed,
        inputs=dict(plan.inputs),
        outputs=outputs,
        metrics=metrics,
        seconds=seconds,
        mlflow_run_id=tracked.run_id,
    )
    _record(
        plan,
        workspace,
        run_id,
        "ran",
        tracked.run_id,
        result=result,
        prefect=prefect_run_id,
        said=said,
        threads=threads,
    )
    return result


def record_reuse(plan: StagePlan, result: StageResult, workspace: Workspace, run_id: str) -> None:
    """Write the edge of a stage whose finished result is taken again."""
    _record(plan, workspace, run_id, "reused", result.mlflow_run_id, result=result)


def faults(result: StageResult) -> list[str]:
    """What is wrong with the bytes of a finished stage, one sentence each (remote ones are checked later)."""
    local = (artifact for artifact in result.outputs.values() if artifact.path is not None)
    return [wrong for artifact in local if (wrong := fault(artifact))]


def refuse_unvalidated(plan: StagePlan, data: StageResult, verdict: StageResult | None) -> None:
    """Raise ValueError where a stage would take data that validation did not let through byte for byte."""
    made = {artifact.digest: role for role, artifact in data.outputs.items()}
    passed = {artifact.digest for artifact in verdict.inputs.values()} if verdict else set()
    for role, artifact in plan.inputs.items():
        if artifact.digest in made and artifact.digest not in passed:
            raise ValueError(
                f"{plan.name} would train on {role} ({artifact.digest[:19]}…), which validation has not let "
                "through; run again without --from, so that validate sees these bytes"
            )


def workdir_of(key: str, workspace: Workspace) -> Path:
    """Where an unfinished stage keeps its checkpoints."""
    return workspace.work_dir / key.removeprefix("sha256:")


def forget_workdir(key: str, workspace: Workspace) -> None:
    """Remove the checkpoints of a stage whose result is safe."""
    shutil.rmtree(workdir_of(key, workspace), ignore_errors=True)


def within(log: Log, part: str) -> Log:
    """The log of one of several trainings in a stage: its metrics are called `<part>/<metric>`."""

    def log_part(step: int, total: int, metrics: Mapping[str, float]) -> None:
        log(step, total, {f"{part}/{name}": value for name, value in metrics.items()})

    return log_part


def _publish(output: StageOutput, workdir: Path, tracked: TrackingRun) -> dict[str, Artifact]:
    """Put what was made into the store; describe what lies elsewhere (data sets, which DVC keeps)."""
    published: dict[str, Artifact] = {}
    for role, (kind, path) in output.outputs.items():
        own = path.resolve().is_relative_to(workdir.resolve())
        published[role] = publish(path, kind, tracked, name=role) if own else describe(path, kind)
    return published


def _record(
    plan: StagePlan,
    workspace: Workspace,
    run_id: str,
    status: Any,
    mlflow_run_id: str,
    *,
    result: StageResult | None = None,
    error: str = "",
    prefect: str = "",
    said: Sequence[str] = (),
    threads: int = 0,
) -> None:
    facts: dict[str, Any] = {}
    if status != "reused":
        facts = {"runtime": plan.config.runtime.model_dump(mode="json"), "threads": threads}
    entry = stage_entry(
        stage=plan.stage,
        instance=plan.variant,
        status=status,
        run=run_id,
        key=plan.key,
        code_digest=plan.code,
        config=plan.slice,
        seed=plan.seed,
        inputs=plan.inputs,
        outputs=result.outputs if result else {},
        seconds=result.seconds if result else 0.0,
        metrics=result.metrics if result else {},
        mlflow_run_id=mlflow_run_id,
        prefect_run_id=prefect,
        error=error,
        facts=facts | ({"said": list(said)} if said else {}),
    )
    open_ledger(workspace).append(entry)


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """`{"zero": {"steps": 3}}` → `{"zero.steps": 3}`."""
    if not isinstance(values, Mapping):
        return {prefix: values}
    parts = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()]
    return {name: value for part in parts for name, value in part.items()}
