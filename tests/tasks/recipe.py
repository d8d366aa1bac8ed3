"""A recipe in miniature, as the stages would write it into the ledger: data, validation, training, evaluation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.artifacts import Artifact, describe
from tasks.ledger import Recorded, open_ledger, stage_entry
from tasks.store import publish
from tasks.tracking import open_run
from tasks.workspace import Workspace
from tests.tasks.test_sshsig import write_key

BENCHMARK = "arithmetic"


def artifact(path: Path, kind: str, content: str) -> Artifact:
    """Write a file, or for a model a directory, and describe it."""
    if kind == "model":
        path.mkdir(parents=True, exist_ok=True)
        (path / "model.safetensors").write_text(content)
        (path / "config.json").write_text("{}")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return describe(path, kind)


class Recipe:
    """Writes one run's artifacts and ledger entries; `stored` puts what stages make into MLflow's runs, as they do."""

    def __init__(self, workspace: Workspace, run: str = "run-1", *, stored: bool = False) -> None:
        self.workspace, self.run, self.root = workspace, run, workspace.root / "made" / run
        self.stored = stored

    def stage(
        self,
        stage: str,
        inputs: Mapping[str, Artifact],
        outputs: Mapping[str, Artifact],
        instance: str = "",
        metrics: Mapping[str, float] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Recorded:
        """One stage that ran."""
        mlflow_run_id = "m"
        if self.stored and stage != "data":
            outputs, mlflow_run_id = self._published(stage, outputs)
        entry = stage_entry(
            stage=stage, instance=instance, status="ran", run=self.run, key=f"{stage}{instance}-{self.run}",
            code_digest="sha256:c", config={"steps": 1}, seed=0, inputs=inputs, outputs=outputs,
            mlflow_run_id=mlflow_run_id, prefect_run_id="p", metrics=metrics, facts=facts,
        )  # fmt: skip
        return open_ledger(self.workspace).append(entry)

    def _published(self, stage: str, outputs: Mapping[str, Artifact]) -> tuple[dict[str, Artifact], str]:
        with open_run(self.workspace, stage) as run:
            made = {role: publish(path, a.kind, run, role) for role, a in outputs.items() if (path := a.path)}
        return made, run.run_id

    def evaluate(
        self,
        model: Artifact,
        correct: float,
        name: str = "r1",
        *,
        preference: float = 0.0,
        problems: int = 200,
        response_tokens: float = 20.0,
        format_rate: float = 0.9,
    ) -> Artifact:
        """An evaluation in which the first `correct` share of the problems was answered."""
        scores = [
            {"id": f"p/{i}", "benchmark": BENCHMARK, "score": float(i < correct * problems)} for i in range(problems)
        ]
        scores += [{"id": f"g/{i}", "benchmark": "general", "score": preference + i / 100} for i in range(20)]
        figures = {"response_tokens": response_tokens, "format_rate": format_rate}
        benchmarks = {BENCHMARK: {"pass_at_1": {"value": correct}, **figures}, "general": {"pass_at_1": None}}
        document = json.dumps({"benchmarks": benchmarks, "problems": scores, "seconds": f"those of {self.run}"})
        result = artifact(self.root / f"{name}-evaluation.json", "evaluation", document)
        self.stage("evaluate", {"model": model}, {"evaluation": result}, instance=name)
        return result

    def make(
        self,
        correct: float = 0.8,
        *,
        weights: str = "r1",
        validated: bool = True,
        preference: float = 0.0,
        metrics: Mapping[str, float] | None = None,
        **figures: float,
    ) -> Artifact:
        """The whole of it; the model r1 comes back, `metrics` are of its training, `figures` of its evaluation."""
        settings = self.workspace.runs_dir / self.run / "resolved.yaml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text("name: r1kit\n")
        problems = artifact(self.root / "problems.parquet", "problems", f"problems of {self.run}")
        verdict = artifact(self.root / "validation.json", "validation", json.dumps({"run": self.run}))
        self.stage("data", {}, {"problems": problems})
        if validated:
            self.stage("validate", {"problems": problems}, {"validation": verdict})
        base = self._model("base", {}, artifact(self.root / "base", "model", f"base of {self.run}"))
        own = artifact(self.root / "r1", "model", weights)
        model = self._model("prefer", {"model": base, "problems": problems}, own, metrics)
        self.evaluate(base, 0.5, "base")
        self.evaluate(model, correct, preference=preference, **figures)  # pyright: ignore[reportArgumentType]
        return model

    def _model(
        self, stage: str, inputs: Mapping[str, Artifact], made: Artifact, metrics: Mapping[str, float] | None = None
    ) -> Artifact:
        model = self.stage(stage, inputs, {"model": made}, metrics=metrics).entry.output("model")
        assert model is not None
        return model


def approver(directory: Path, who: str = "alice@example.org") -> Path:
    """A key for somebody, listed in `approvers`; the key's path comes back."""
    directory.mkdir(parents=True, exist_ok=True)
    key = directory / f"{who}.key"
    line = f"{who} {write_key(key)}\n"
    with (directory / "approvers").open("a") as stream:
        stream.write(line)
    return key
