"""MLflow's own deletion and garbage collection cannot take what environments need."""

import os
import subprocess
import sys
from pathlib import Path

from tasks.artifacts import local_path, verify
from tasks.ledger import open_ledger
from tasks.lineage import history, resolve_model
from tasks.promotion import promote, rollback
from tasks.reach import environment_roots, needed_by
from tasks.recovery import environment_lock, recover
from tasks.register import register
from tasks.tracking import client_of
from tasks.workspace import Workspace
from tests.tasks.promoted import FREE, assert_whole, candidate, registry, through
from tests.tasks.recipe import Recipe


def mlflow_gc(workspace: Workspace, backend: str = "") -> None:
    """The command, as an administrator would run it; `backend` is a server's database."""
    own = {"MLFLOW_TRACKING_URI": workspace.mlflow_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", backend or workspace.mlflow_uri],
        env={**os.environ, **own}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip


def delete_everything(workspace: Workspace) -> None:
    """Every run, experiment and registered model that MLflow knows."""
    client = client_of(workspace)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            client.delete_run(run.info.run_id)
        if experiment.name != "Default":
            client.delete_experiment(experiment.experiment_id)


def heal(workspace: Workspace) -> list[str]:
    with environment_lock(workspace):
        return recover(workspace)


def test_mlflow_deletes_everything_and_its_gc_comes_by(tracked: Workspace) -> None:
    through(tracked, "run-1", "run-2")
    candidate(tracked, "run-3")
    before, entries = registry(tracked), open_ledger(tracked).entries()
    needed = [a for a in needed_by(entries, environment_roots(entries)) if a.uri.startswith("file:")]
    delete_everything(tracked)
    mlflow_gc(tracked)
    for environment in ("staging", "production"):
        for recorded in history(entries, "r1kit", environment):
            assert all(verify(edge.artifact) for edge in recorded.entry.outputs), "an environment's copy is gone"
    assert not all(verify(a) for a in needed), "MLflow took nothing of the lineage, so this shows nothing"

    said = heal(tracked)
    assert any("back from the vault" in line for line in said)
    assert [a for a in needed if not verify(a)] == []
    after = registry(tracked)
    assert {name: after["aliases"][name] for name in ("r1kit-staging", "r1kit-production")} == {
        name: {"current": "2", "previous": "1"} for name in ("r1kit-staging", "r1kit-production")
    }
    for name in ("r1kit-staging/1", "r1kit-staging/2", "r1kit-production/1", "r1kit-production/2"):
        assert after[name][0] == before[name][0], "the version points to other bytes"
    assert heal(tracked) == []
    assert_whole(tracked, "staging", "production")
    assert rollback(tracked, "production").version == "1"
    assert_whole(tracked, "production")


def test_deleted_runs_are_restored_before_the_gc(tracked: Workspace) -> None:
    through(tracked, "run-1", to=("staging",))
    client = client_of(tracked)
    runs = {r.entry.facts.get("mlflow_run_id", "m") for r in open_ledger(tracked).entries()} - {"m"}
    for run_id in runs:
        client.delete_run(run_id)
    assert any("had been deleted and is back" in line for line in heal(tracked))
    mlflow_gc(tracked)
    assert {client.get_run(run_id).info.lifecycle_stage for run_id in runs} == {"active"}
    assert_whole(tracked, "staging")


def test_a_lost_registry_gives_no_number_twice(tracked: Workspace) -> None:
    through(tracked, "run-1", to=("staging",))
    candidate(tracked, "run-2")
    client = client_of(tracked)
    client.update_model_version("r1kit-candidate", "1", "the first one")
    client.delete_model_version("r1kit-candidate", "2")
    Recipe(tracked, "run-3", stored=True).make(weights="run-3")
    assert register(tracked, run="run-3").version == "3"
    assert client.get_model_version("r1kit-candidate", "1").description == "the first one"
    assert {n for n in registry(tracked) if n.startswith("r1kit-cand")} == {f"r1kit-candidate/{n}" for n in (1, 2, 3)}
    client.delete_registered_model("r1kit-candidate")
    client.delete_registered_model("r1kit-staging")
    done = promote(tracked, "r1kit-candidate/3", "staging", settings=FREE)
    assert (done.version, done.previous) == ("2", "1")
    assert_whole(tracked, "staging", "r1kit-candidate/1", "r1kit-candidate/2")


def test_the_copies_are_physical_and_the_lineage_takes_no_room(tracked: Workspace) -> None:
    through(tracked, "run-1", to=("staging",))
    copy, source = (local_path(resolve_model(name, tracked).artifact.uri) for name in ("staging", "candidate"))
    assert copy and source and copy.is_relative_to(tracked.artifacts_dir / "environments")
    assert not (copy / "model.safetensors").samefile(source / "model.safetensors")
    kept = list(tracked.artifacts_dir.glob("environments/lineage/*/*/model.safetensors"))
    assert kept and all(Path(file).stat().st_nlink > 1 for file in kept)
