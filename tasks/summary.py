"""summary.json: what a run did, for machines. Its JSON schema stands in docs/summary.schema.json."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from r1kit.schema import Section
from tasks.notes import write_atomically

FORMAT = "r1kit summary 1"
FILE = "summary.json"

StageStatus = Literal["running", "ran", "cached", "skipped", "failed"]
RunStatus = Literal["running", "finished", "failed", "interrupted"]


class Output(Section):
    """An artifact that a stage made."""

    kind: str
    uri: str
    digest: str
    size_bytes: int = Field(ge=0)


class StageSummary(Section):
    """What became of one stage."""

    name: str
    """`zero`; with a variant `evaluate-dev1`, `distill-small`."""
    stage: str
    variant: str = ""
    key: str = ""
    """Stage key; empty where the stage was skipped."""
    status: StageStatus
    seconds: float = Field(default=0.0, ge=0)
    """How long it took in this run; next to nothing where it was cached."""
    inputs: dict[str, str] = {}
    """Role → digest."""
    outputs: dict[str, Output] = {}
    """Role → artifact."""
    metrics: dict[str, float | None] = {}
    code_digest: str = ""
    mlflow_run_id: str = ""
    note: str = ""
    """Why it was skipped, or taken anew."""
    error: str = ""


class BenchmarkSummary(Section):
    """One model on one benchmark, or on all (`overall`)."""

    pass_at_1: float | None
    """Mean over samples and problems; null where the benchmark has no rule."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    """Upper end."""
    n: int
    """Problems."""
    k: int
    """Samples a problem."""
    mean_response_tokens: float
    format_rate: float
    one_language_rate: float | None = None
    preference: float | None = None
    """Mean score of the reward models, where they took part."""


class ModelSummary(Section):
    """A model and how it fared."""

    name: str
    """`base`, `zero`, `dev1`, `dev2`, `dev3`, `r1`, `distill-<name>`."""
    stage: str
    uri: str
    digest: str
    benchmarks: dict[str, BenchmarkSummary] = {}


class Registration(Section):
    """The candidate that the run registered."""

    name: str
    version: str
    new: bool


class Summary(Section):
    """One run of the recipe."""

    format: Literal["r1kit summary 1"] = FORMAT
    run_id: str
    profile: str
    seed: int
    status: RunStatus
    started: str
    """ISO 8601, UTC."""
    seconds: float = Field(ge=0)
    code_digest: str
    """Over all of r1kit, tasks and flows."""
    config_digest: str
    stages: tuple[StageSummary, ...] = ()
    models: tuple[ModelSummary, ...] = ()
    registered: Registration | None = None
    error: str = ""

    def stage(self, name: str) -> StageSummary | None:
        """The stage of that name."""
        return next((stage for stage in self.stages if stage.name == name), None)


def write_summary(summary: Summary, run_dir: Path) -> None:
    """Write summary.json whole or not at all."""
    write_atomically(run_dir / FILE, summary.model_dump_json(indent=1) + "\n")


def read_summary(run_dir: Path) -> Summary:
    """The summary of a run directory. Raises ValueError where there is none, or it cannot be read."""
    path = run_dir / FILE
    try:
        return Summary.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{run_dir} holds no run; start one with `r1 run`") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def summary_schema() -> str:
    """The JSON schema, as docs/summary.schema.json holds it."""
    return json.dumps(Summary.model_json_schema(mode="serialization"), indent=1) + "\n"


def benchmarks_of(evaluation: Mapping[str, Any]) -> dict[str, BenchmarkSummary]:
    """`overall` and each benchmark, from the JSON of an evaluation."""
    parts = {"overall": evaluation["overall"], **evaluation["benchmarks"]}
    return {name: _benchmark(scores) for name, scores in parts.items()}


def _benchmark(scores: Mapping[str, Any]) -> BenchmarkSummary:
    share = scores.get("pass_at_1") or {}
    return BenchmarkSummary(
        pass_at_1=share.get("value"),
        low=share.get("low"),
        high=share.get("high"),
        n=scores["n"],
        k=scores["k"],
        mean_response_tokens=scores["response_tokens"],
        format_rate=scores["format_rate"],
        one_language_rate=scores.get("one_language_rate"),
        preference=(scores.get("preference") or {}).get("value"),
    )
