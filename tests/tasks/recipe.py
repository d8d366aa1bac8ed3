"""A recipe in miniature, as the stages would write it into the ledger: data, validation, training, evaluation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.artifacts import Artifact, describe
from tasks.ledger import Recorded, open_ledger, stage_entry
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
    """Writes one run's artifacts and ledger entries."""

    def __init__(self, workspace: Workspace, run: str = "run-1") -> None:
        self.workspace, self.run, self.root = workspace, run, workspace.root / "made" / run

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
        entry = stage_entry(
            stage=stage, instance=instance, status="ran", run=self.run, key=f"{stage}-{self.run}",
            code_digest="sha256:c", config={"steps": 1}, seed=0, inputs=inputs, outputs=outputs, mlflow_run_id="m",
            prefect_run_id="p", metrics=metrics, facts=facts,
        )  # fmt: skip
        return open_ledger(self.workspace).append(entry)

    def evaluate(
        self,
        model: Artifact,
        correct: float,
        name: str = "r1",
        *,
        preference: float = 0.0,
        problems: int = 200,
    ) -> Artifact:
        """An evaluation in which the first `correct` share of the problems was answered."""
        scores = [
            {"id": f"p/{i}", "benchmark": BENCHMARK, "score": float(i < correct * problems)} for i in range(problems)
        ]
        scores += [{"id": f"g/{i}", "benchmark": "general", "score": preference + i / 100} for i in range(20)]
        benchmarks = {BENCHMARK: {"pass_at_1": {"value": correct}}, "general": {"pass_at_1": None}}
        document = json.dumps({"benchmarks": benchmarks, "problems": scores})
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
    ) -> Artifact:
        """The whole of it; the model r1 comes back. `metrics` are those of its last training."""
        settings = self.workspace.runs_dir / self.run / "resolved.yaml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text("name: r1kit\n")
        problems = artifact(self.root / "problems.parquet", "problems", "problems")
        verdict = artifact(self.root / "validation.json", "validation", "{}")
        self.stage("data", {}, {"problems": problems})
        if validated:
            self.stage("validate", {"problems": problems}, {"validation": verdict})
        base = artifact(self.root / "base", "model", "base")
        model = artifact(self.root / "r1", "model", weights)
        self.stage("base", {}, {"model": base})
        self.stage("prefer", {"model": base, "problems": problems}, {"model": model}, metrics=metrics)
        self.evaluate(base, 0.5, "base")
        self.evaluate(model, correct, preference=preference)
        return model


def approver(directory: Path, who: str = "alice@example.org") -> Path:
    """A key for somebody, listed in `approvers`; the key's path comes back."""
    directory.mkdir(parents=True, exist_ok=True)
    key = directory / f"{who}.key"
    line = f"{who} {write_key(key)}\n"
    with (directory / "approvers").open("a") as stream:
        stream.write(line)
    return key
