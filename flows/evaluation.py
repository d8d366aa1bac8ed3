"""Measuring a model by itself, with the benchmarks of an earlier run."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.folder import latest_result
from tasks.lineage import resolve_model
from tasks.progress import Progress
from tasks.stage import StageContext, body_of
from tasks.store import fetch
from tasks.workspace import Workspace, keep_caches_within

if TYPE_CHECKING:
    from r1kit.config import Config


def evaluate_model(reference: str, config: "Config", workspace: Workspace, progress: Progress) -> dict[str, Any]:
    """Run the evaluate stage's body on a model, with the benchmarks of the latest run that has some.

    Returns:
        The evaluation as JSON. Nothing is kept: no run, no entry in the ledger.
    """
    keep_caches_within(workspace)
    model = resolve_model(reference, workspace, config.name)
    data = latest_result("data", workspace)
    if data is None or "benchmarks" not in data.outputs:
        raise ValueError("no run has prepared benchmarks yet; `r1 run --until data` does")
    inputs = {"model": model.artifact, "benchmarks": data.outputs["benchmarks"]}

    def log(step: int, total: int, metrics: Mapping[str, float]) -> None:
        progress.step("eval", step, total, metrics)

    with tempfile.TemporaryDirectory() as scratch:
        context = StageContext(
            name="eval",
            variant=model.model,
            config=config,
            seed=config.seed,
            key="",
            workdir=Path(scratch),
            cache_dir=workspace.cache_dir,
            inputs={role: fetch(artifact, workspace) for role, artifact in inputs.items()},
            digests={role: artifact.digest for role, artifact in inputs.items()},
            log=log,
            say=lambda message: progress.say("eval", message),
        )
        progress.begin("eval")
        _, path = body_of("evaluate").run(context).outputs["evaluation"]
        return json.loads(path.read_text())
