"""What the report tells, read from the files of a run directory. No file but the summary is indispensable."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.artifacts import local_path
from tasks.stage import STAGES
from tasks.summary import StageSummary, Summary
from tasks.workspace import SETTINGS_FILE

STAGE_TITLES = {
    "data": "Data", "validate": "Validation", "base": "Base", "zero": "R1-Zero", "cold_start": "Cold start",
    "reason": "Reasoning RL", "reject": "Rejection", "refine": "Second SFT", "distill": "Distillation",
    "reward_models": "Reward models", "prefer": "Preference RL", "rl_student": "Student by RL alone",
    "evaluate": "Evaluation", "register": "Register",
}  # fmt: skip
MODEL_TITLES = {
    "base": "Base", "zero": "R1-Zero", "dev1": "Dev1", "dev2": "Dev2", "dev3": "Dev3", "r1": "R1",
}  # fmt: skip
MADE_BY = {
    "base": "base",
    "zero": "zero",
    "cold_start": "dev1",
    "reason": "dev2",
    "refine": "dev3",
    "prefer": "r1",
}
"""Stage → the model it makes."""


@dataclass(frozen=True)
class Curve:
    """One metric of one stage over its steps."""

    stage: str
    metric: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Run:
    """All the report tells."""

    summary: Summary
    stages: Sequence[StageSummary]
    """In the order of the recipe."""
    evaluations: Mapping[str, Mapping[str, Any]]
    """Model → its evaluation's JSON, in the order of the recipe."""
    validation: Mapping[str, Any] | None
    curves: Mapping[str, Sequence[Curve]]
    """Stage → its curves."""
    configuration: str
    calibrations: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Kind of reward model → the bins of its reliability diagram."""


def read_run(run_dir: Path, summary: Summary) -> Run:
    """Gather everything from a run directory; what is absent or torn is left out."""
    evaluations = {
        stage.variant: document
        for stage in summary.stages
        if stage.stage == "evaluate" and (document := _document(run_dir, stage, "evaluation"))
    }
    validate = summary.stage("validate")
    configuration = run_dir / SETTINGS_FILE
    return Run(
        summary=summary,
        stages=sorted(summary.stages, key=lambda stage: _place(stage.stage, STAGES)),
        evaluations=dict(sorted(evaluations.items(), key=lambda item: model_place(item[0]))),
        validation=_document(run_dir, validate, "validation") if validate else None,
        curves=read_curves(run_dir / "metrics.jsonl"),
        configuration=configuration.read_text(errors="replace") if configuration.is_file() else "",
        calibrations={
            stage.variant: bins
            for stage in summary.stages
            if stage.stage == "reward_models"
            and (bins := (_document(run_dir, stage, "details") or {}).get("calibration"))
        },
    )


def stage_title(stage: StageSummary) -> str:
    """What people call a stage."""
    title = STAGE_TITLES.get(stage.stage, stage.stage)
    return f"{title}: {model_title(stage.variant)}" if stage.variant else title


def model_title(model: str) -> str:
    """What people call a model."""
    if model.startswith("distill-"):
        return f"Student {model.removeprefix('distill-')}"
    if model.startswith("rl-student-"):
        return f"Student {model.removeprefix('rl-student-')} by RL alone"
    return MODEL_TITLES.get(model, model)


def model_place(model: str) -> tuple[int, str]:
    """Where a model stands in the recipe; students last, by name."""
    return _place(model, tuple(MODEL_TITLES)), model


def _place(name: str, order: Sequence[str]) -> int:
    return order.index(name) if name in order else len(order)


def _document(run_dir: Path, stage: StageSummary, role: str) -> dict[str, Any] | None:
    """A stage's JSON output: the copy in the run directory, else the artifact itself where it lies here."""
    places = [run_dir / "stages" / stage.name / f"{role}.json"]
    output = stage.outputs.get(role)
    if output and (path := local_path(output.uri)):
        places += [path / f"{role}.json", path]
    documents = (_json(place) for place in places if place.is_file())
    return next((document for document in documents if document), None)


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_curves(path: Path) -> dict[str, list[Curve]]:
    """Every metric of every stage over its steps; of a repeated step the last line counts."""
    points: dict[tuple[str, str], dict[float, float]] = {}
    for line in _lines(path):
        for metric, value in line["metrics"].items():
            if _is_number(value):
                points.setdefault((line["stage"], metric), {})[float(line["step"])] = float(value)
    curves: dict[str, list[Curve]] = {}
    for (stage, metric), values in points.items():
        curves.setdefault(stage, []).append(Curve(stage, metric, sorted(values.items())))
    return curves


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    with path.open(errors="replace") as stream:
        for text in stream:
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut off by a kill
            if isinstance(line, dict) and _is_number(line.get("step")) and isinstance(line.get("metrics"), dict):
                yield {**line, "stage": str(line.get("stage", ""))}
