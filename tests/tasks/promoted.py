"""What tests of promotion share: candidates, settings, and what a store and a ledger hold at a moment."""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1kit.promotion import GcConfig, PromotionConfig
from tasks.audit import audit
from tasks.ledger import open_ledger
from tasks.lineage import history
from tasks.promotion import promote
from tasks.register import register
from tasks.tracking import client_of
from tasks.workspace import Workspace
from tests.tasks.recipe import Recipe

FREE = PromotionConfig(approvals={"staging": 0, "production": 0}, max_regression=1.0)
"""No approval asked, and no comparison in the way."""
LAST_RUN = GcConfig(keep_runs=1)


def candidate(
    workspace: Workspace, run: str = "run-1", correct: float = 0.8, *, stored: bool = True, **options: Any
) -> str:
    """Register a model of its own; what to call it comes back."""
    Recipe(workspace, run, stored=stored).make(correct, weights=run, **options)
    made = register(workspace, run=run)
    return f"{made.name}/{made.version}"


def held(workspace: Workspace, environment: str) -> list[str]:
    """Versions in force in an environment, oldest first."""
    return [r.entry.facts["version"] for r in history(open_ledger(workspace).entries(), "r1kit", environment)]


def through(workspace: Workspace, *runs: str, to: tuple[Any, ...] = ("staging", "production")) -> None:
    """Candidates that were let into these environments, one after the other."""
    for run in runs:
        candidate(workspace, run)
        for environment in to:
            promote(workspace, "r1", environment, settings=FREE)


def assert_whole(workspace: Workspace, *references: str) -> None:
    """Whatever an environment holds can be shown back to base, every byte of it."""
    for reference in references:
        report = audit(workspace, reference)
        assert report.sound, report.problems


def files(root: Path) -> dict[str, str]:
    """Path → digest of every file below."""
    found = (p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def registry(workspace: Workspace) -> dict[str, Any]:
    """All that MLflow's registry says."""
    client = client_of(workspace)
    models = {m.name: dict(m.aliases) for m in client.search_registered_models()}
    versions = {f"{v.name}/{v.version}": (v.source, dict(v.tags)) for v in client.search_model_versions()}
    return {"aliases": {name: {a: str(v) for a, v in found.items()} for name, found in models.items()}, **versions}


# What follows runs in processes of their own, forked from one that has imported all but opened no database.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["mlflow.tracking", "model_signing.signing", "tests.tasks.promoted"])

STEPS: tuple[tuple[str, str], ...] = (
    ("tasks.ledger.Ledger", "append"), ("tasks.recovery", "_tidy"), ("tasks.store", "_copy_whole"),
    ("tasks.store", "_copy_synced"), ("tasks.store", "_link"), ("tasks.gc", "remove"), ("tasks.recovery", "remove"),
    ("mlflow.tracking.MlflowClient", "create_run"), ("mlflow.tracking.MlflowClient", "set_terminated"),
    ("mlflow.tracking.MlflowClient", "create_experiment"), ("mlflow.tracking.MlflowClient", "create_registered_model"),
    ("mlflow.tracking.MlflowClient", "create_model_version"), ("mlflow.tracking.MlflowClient", "delete_model_version"),
    ("mlflow.tracking.MlflowClient", "set_registered_model_alias"), ("mlflow.tracking.MlflowClient", "delete_run"),
    ("mlflow.tracking.MlflowClient", "delete_registered_model_alias"), ("mlflow.tracking.MlflowClient", "log_batch"),
)  # fmt: skip
"""Everything that changes the ledger, MLflow or a file: a kill comes before or after one of these."""


def run_apart(work: Callable[..., Any], *arguments: Any, timeout: float = 120) -> int:
    """Run it in a process of its own; its exit code comes back, -9 where it was killed."""
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    process.join(timeout)
    assert process.exitcode is not None, "it did not end"
    return process.exitcode


def killed_at(instant: int, work: Callable[..., Any], *arguments: Any) -> bool:
    """Do it in a process that is killed at its `instant`-th step. Says whether it came so far."""
    code = run_apart(_die_at, instant, work, arguments)
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def _die_at(instant: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        if count == instant:
            os.kill(os.getpid(), signal.SIGKILL)

    for owner, name in STEPS:
        _watch(owner, name, tick)
    work(*arguments)


def _watch(owner: str, name: str, tick: Callable[[], None]) -> None:
    import importlib

    module, _, inner = owner.rpartition(".")
    holder = getattr(importlib.import_module(module), inner) if inner[:1].isupper() else importlib.import_module(owner)
    original = getattr(holder, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        tick()
        result = original(*arguments, **options)
        tick()
        return result

    setattr(holder, name, watched)
