"""The folder of a run: summary, curves, what each stage left, the report."""

import functools
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.artifacts import describe, digest_bytes, digest_json
from tasks.ledger import Edge, Entry, Status, open_ledger
from tasks.lineage import MODEL_NAMES
from tasks.notes import StageNotes, finite, write_atomically
from tasks.stage import StagePlan, StageResult, workdir_of
from tasks.summary import (
    FILE,
    ModelSummary,
    Output,
    Registration,
    RunStatus,
    StageStatus,
    StageSummary,
    Summary,
    benchmarks_of,
    read_summary,
    write_summary,
)
from tasks.workspace import REPOSITORY, SETTINGS_FILE, Workspace

if TYPE_CHECKING:
    from r1kit.config import Config

COPIED_ROLES = ("evaluation", "validation")
"""Outputs small and telling enough to lie in the run's folder too."""

_ENDS: dict[RunStatus, Status] = {"finished": "done", "failed": "failed", "interrupted": "failed"}

STOPPED = "stopped with the run"
"""Error of a stage that did not fail itself."""


class RunFolder:
    """`.r1/runs/<run id>/`, kept up to date while the run goes on."""

    def __init__(self, workspace: Workspace, config: "Config", profile: str) -> None:
        self.workspace = workspace
        self.run_id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.path = workspace.runs_dir / self.run_id
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._stages: dict[str, StageSummary] = {}
        self._keys: dict[str, str] = {}
        values = config.model_dump(mode="json", by_alias=True)
        self._summary = Summary(
            run_id=self.run_id,
            profile=profile,
            seed=config.seed,
            status="running",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=0.0,
            code_digest=whole_code_digest(),
            config_digest=digest_json(values),
        )
        self.path.mkdir(parents=True)
        resolved = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_atomically(self.path / SETTINGS_FILE, f"# profile {profile}, as it was resolved\n{resolved}")
        self._metrics = (self.path / "metrics.jsonl").open("a", buffering=1)
        self.save()
        _point_latest(self.path)

    @property
    def summary(self) -> Summary:
        """As it stands."""
        return self._summary

    def step(self, name: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        """Note a step in the run's curves."""
        self._write_line(
            name, {"step": step, "total": total, "time": round(time.time(), 3), "metrics": finite(metrics)}
        )

    def begin(self, name: str, stage: str, variant: str) -> None:
        """A stage begins."""
        self._put(StageSummary(name=name, stage=stage, variant=variant, status="running", seconds=0.0))

    def skip(self, name: str, stage: str, variant: str, note: str) -> None:
        """A stage is left out."""
        self._put(StageSummary(name=name, stage=stage, variant=variant, status="skipped", seconds=0.0, note=note))

    def fail(self, plan: StagePlan, error: str, seconds: float) -> None:
        """A stage failed; the verdict that it may have left says why."""
        for role in COPIED_ROLES:
            left = workdir_of(plan.key, self.workspace) / f"{role}.json"
            if left.is_file():
                folder = self.path / "stages" / plan.name
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(left, folder / left.name)
        inputs = {role: artifact.digest for role, artifact in plan.inputs.items()}
        self._put(
            StageSummary(
                name=plan.name,
                stage=plan.stage,
                variant=plan.variant,
                key=plan.key,
                status="failed",
                seconds=seconds,
                inputs=inputs,
                code_digest=plan.code,
                error=error,
            )
        )

    def finish_stage(self, result: StageResult, status: StageStatus, seconds: float, note: str = "") -> None:
        """A stage is done, anew or from the cache: keep what it left."""
        folder = self.path / "stages" / result.name
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "result.json", result.model_dump_json(indent=1))
        notes = StageNotes(result.key, self.workspace)
        if notes.details.is_file():
            shutil.copyfile(notes.details, folder / "details.json")
        for role in COPIED_ROLES:
            artifact = result.outputs.get(role)
            if artifact and artifact.path and artifact.path.is_file():
                shutil.copyfile(artifact.path, folder / f"{role}.json")
        self._keys[result.name] = result.key
        outputs = {role: Output(**artifact.model_dump()) for role, artifact in result.outputs.items()}
        self._put(
            StageSummary(
                name=result.name,
                stage=result.stage,
                variant=result.variant,
                key=result.key,
                status=status,
                seconds=seconds,
                inputs={role: artifact.digest for role, artifact in result.inputs.items()},
                outputs=outputs,
                metrics=dict(finite(result.metrics)),
                code_digest=result.code_digest,
                mlflow_run_id=result.mlflow_run_id,
                note=note,
            )
        )

    def finish_registration(self, registration: Registration, seconds: float) -> None:
        """The candidate is registered."""
        self._summary = self._summary.model_copy(update={"registered": registration})
        status: StageStatus = "ran" if registration.new else "cached"
        note = f"{registration.name}/{registration.version}"
        self._put(StageSummary(name="register", stage="register", status=status, seconds=seconds, note=note))

    def close(self, status: RunStatus, error: str = "") -> None:
        """The run is over: whole curves, last summary."""
        for stage in list(self._stages.values()):
            if stage.status == "running":
                self._stages[stage.name] = stage.model_copy(update={"status": "failed", "error": STOPPED})
        self._metrics.close()
        self._rewrite_metrics()
        self._summary = self._summary.model_copy(update={"status": status, "error": error})
        self.save()
        self._seal(status)

    def _seal(self, status: RunStatus) -> None:
        """The ledger names the folder's bytes as the run left them, so that an audit notices a change."""
        parts = {"summary": FILE, "configuration": SETTINGS_FILE, "curves": "metrics.jsonl", "notes": "stages"}
        edges = (
            Edge(role=role, artifact=describe(self.path / name, role))
            for role, name in parts.items()
            if (self.path / name).exists()
        )
        entry = Entry(
            kind="run", job="recipe", status=_ENDS.get(status, "failed"), run=self.run_id, outputs=tuple(edges)
        )
        open_ledger(self.workspace).append(entry)

    def save(self) -> None:
        """Write summary.json."""
        with self._lock:
            update: dict[str, Any] = {
                "seconds": round(time.monotonic() - self._started, 3),
                "stages": tuple(self._stages.values()),
                "models": tuple(self._models()),
            }
            self._summary = self._summary.model_copy(update=update)
            write_summary(self._summary, self.path)

    def write_report(self) -> Path | None:
        """report.html; None where there is nothing to tell yet."""
        if not self._stages:
            return None
        from tasks.report import write_report

        return write_report(self.path, self._summary)

    def _put(self, stage: StageSummary) -> None:
        self._stages[stage.name] = stage
        self.save()

    def _models(self) -> list[ModelSummary]:
        models = []
        for stage in list(self._stages.values()):
            output = stage.outputs.get("model")
            if output is None:
                continue
            name = model_name(stage.stage, stage.variant)
            examined = self.path / "stages" / f"evaluate-{name}" / "evaluation.json"
            done = self._stages.get(f"evaluate-{name}")
            known = done is not None and done.status in ("ran", "cached") and examined.is_file()
            benchmarks = benchmarks_of(json.loads(examined.read_text())) if known else {}
            models.append(
                ModelSummary(name=name, stage=stage.name, uri=output.uri, digest=output.digest, benchmarks=benchmarks)
            )
        return models

    def _rewrite_metrics(self) -> None:
        """The curves of all stages, those of an earlier run and from before a kill included."""
        lines = [
            json.dumps({"stage": name, **line})
            for name, key in self._keys.items()
            for line in StageNotes(key, self.workspace).read()
        ]
        unfinished = [
            text
            for text in (self.path / "metrics.jsonl").read_text().splitlines()
            if json.loads(text)["stage"] not in self._keys
        ]
        write_atomically(self.path / "metrics.jsonl", "".join(f"{line}\n" for line in [*lines, *unfinished]))

    def _write_line(self, name: str, line: Mapping[str, Any]) -> None:
        with self._lock:
            self._metrics.write(json.dumps({"stage": name, **line}) + "\n")


def model_name(stage: str, variant: str = "") -> str:
    """What people call the model of a stage: `dev2`, `distill-small`."""
    name = MODEL_NAMES.get(stage, stage)
    return f"{name}-{variant}" if variant else name


def latest_result(name: str, workspace: Workspace, profile: str = "") -> StageResult | None:
    """The newest finished result of a stage, in the runs of a profile or of any."""
    for run_dir in sorted(workspace.runs_dir.glob("2*"), reverse=True):
        kept = run_dir / "stages" / name / "result.json"
        if kept.is_file() and (not profile or read_summary(run_dir).profile == profile):
            return StageResult.model_validate_json(kept.read_text())
    return None


@functools.cache
def whole_code_digest() -> str:
    """Digest of all the code of this repository that can run."""
    files = sorted(path for package in ("r1kit", "tasks", "flows") for path in (REPOSITORY / package).rglob("*.py"))
    return digest_json({path.relative_to(REPOSITORY).as_posix(): digest_bytes(path.read_bytes()) for path in files})


def _point_latest(path: Path) -> None:
    scratch = path.parent / f".latest.{os.getpid()}"
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(path.name)
    scratch.replace(path.parent / "latest")
