"""Tracking and storing on a real MLflow over SQLite."""

import time
from pathlib import Path

import pytest

from tasks.artifacts import digest_directory
from tasks.store import fetch, publish
from tasks.tracking import client_of, open_run
from tasks.workspace import Workspace


def test_a_run_is_tracked_and_its_artifacts_come_back(tracked: Workspace, tmp_path: Path) -> None:
    model = tmp_path / "source"
    (model / "sub").mkdir(parents=True)
    (model / "weights").write_bytes(b"w" * 1000)
    (model / "sub" / "config.json").write_text("{}")
    with open_run(tracked, "zero", tags={"r1kit.run": "one"}) as run:
        run.log_params({"steps": 3})
        for step in range(1, 2001):
            run.log_metrics(step, {"loss": 1 / step})
        artifact = publish(model, "model", run)
        single = publish(model / "weights", "table", run)

    client = client_of(tracked)
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED" and stored.data.tags["r1kit.run"] == "one"
    assert len(client.get_metric_history(run.run_id, "loss")) == 2000
    assert artifact.digest == digest_directory(model) and artifact.size_bytes == 1002
    assert fetch(artifact, tracked).is_relative_to(tracked.root)
    assert fetch(single, tracked).read_bytes() == b"w" * 1000

    (fetch(artifact, tracked) / "weights").write_bytes(b"x")
    with pytest.raises(ValueError, match="altered"):
        fetch(artifact, tracked)

    remote = single.model_copy(update={"uri": f"runs:/{run.run_id}/table/weights"})
    assert fetch(remote, tracked) == fetch(remote, tracked)
    assert fetch(remote, tracked).name == "weights"


def test_a_killed_run_is_gone_on_with(tracked: Workspace) -> None:
    first = open_run(tracked, "zero", key="abc")
    assert open_run(tracked, "zero", key="abc").run_id == first.run_id
    assert open_run(tracked, "zero", key="other").run_id != first.run_id
    first.close()
    assert open_run(tracked, "zero", key="abc").run_id != first.run_id


def test_errors_close_the_run_as_failed(tracked: Workspace) -> None:
    with pytest.raises(RuntimeError), open_run(tracked, "zero") as failed:
        raise RuntimeError
    with pytest.raises(KeyboardInterrupt), open_run(tracked, "zero") as killed:
        raise KeyboardInterrupt
    client = client_of(tracked)
    assert client.get_run(failed.run_id).info.status == "FAILED"
    assert client.get_run(killed.run_id).info.status == "KILLED"


def test_metrics_cost_little(tracked: Workspace) -> None:
    with open_run(tracked, "zero") as run:
        started = time.process_time()
        for step in range(1000):
            run.log_metrics(step, {"loss": 0.0, "reward": 1.0})
        assert (time.process_time() - started) / 1000 < 0.002
