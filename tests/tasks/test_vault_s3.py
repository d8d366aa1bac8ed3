"""Environments whose store is S3: their own copies there, which MLflow's deletions do not reach."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.audit import audit, audit_everything
from tasks.gc import collect, plan
from tasks.ledger import open_ledger
from tasks.lineage import history
from tasks.promotion import promote, rollback
from tasks.recovery import environment_lock, recover
from tasks.store import is_there
from tasks.workspace import Workspace
from tests.tasks.promoted import FREE, LAST_RUN, assert_whole, candidate, registry, through
from tests.tasks.seaweed import S3Server
from tests.tasks.test_vault import delete_everything, mlflow_gc
from tests.tasks.tracking_server import mlflow_server


@pytest.fixture(params=["through the server", "straight to S3"])
def served(
    request: pytest.FixtureRequest, workspace: Workspace, empty_database: Path, s3_server: S3Server, bucket: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Workspace]:  # fmt: skip
    """A workspace at an MLflow server, with artifacts and ledger in a bucket."""
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("R1_LEDGER", f"s3://{bucket}/ledger")
    database = Path(shutil.copy(empty_database, tmp_path / "server.db"))
    through_server = request.param == "through the server"
    with mlflow_server(tmp_path, database, f"s3://{bucket}/artifacts", through=through_server) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield workspace


def test_environments_on_s3_outlive_mlflow(served: Workspace, s3_server: S3Server, bucket: str, tmp_path: Path) -> None:
    through(served, "run-1", "run-2")
    entries = open_ledger(served).entries()
    copies = [edge.artifact for e in ("staging", "production") for r in history(entries, "r1kit", e)
              for edge in r.entry.outputs]  # fmt: skip
    assert {artifact.uri.partition(":")[0] for artifact in copies} <= {"s3", "mlflow-artifacts"}
    kept = [item["Key"] for item in s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]]
    places = {key.split("/environments/")[1].split("/")[0] for key in kept if "/environments/" in key}
    assert places == {"r1kit-staging", "r1kit-production", "lineage"}
    assert_whole(served, "staging", "production")

    before = registry(served)
    delete_everything(served)
    mlflow_gc(served, f"sqlite:///{tmp_path / 'server.db'}")
    assert all(is_there(artifact.uri, served) for artifact in copies), "an environment's copy is gone"
    with environment_lock(served):
        said = recover(served)
    assert said and registry(served)["aliases"]["r1kit-production"] == before["aliases"]["r1kit-production"]
    assert_whole(served, "staging", "production")
    assert rollback(served, "production").version == "1"
    assert_whole(served, "production")
    assert not [problem for problem in audit_everything(served).problems if "environments" in problem]


def test_gc_on_s3_takes_what_nothing_needs(served: Workspace) -> None:
    through(served, "run-1", to=("staging",))
    candidate(served, "run-2")
    candidate(served, "run-3")
    items = plan(served, LAST_RUN)
    freed = collect(served, LAST_RUN)
    assert items and {item.uri for item in freed.items} == {item.uri for item in items}
    assert not any(is_there(item.uri, served) for item in items)
    assert "r1kit-candidate/2" in {item.version for item in items}
    assert plan(served, LAST_RUN) == []
    assert_whole(served, "staging", "r1kit-candidate/3")


def test_a_byte_altered_in_the_bucket_is_found(served: Workspace, s3_server: S3Server, bucket: str) -> None:
    through(served, "run-1", to=("staging",))
    assert_whole(served, "staging")
    client = s3_server.client()
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]]
    (key,) = [k for k in keys if "/r1kit-staging/" in k and k.endswith("model.safetensors")]
    client.put_object(Bucket=bucket, Key=key, Body=b"r2")
    report = audit(served, "staging")
    assert not report.sound
    assert any("was altered" in problem and "r1kit-staging" in problem for problem in report.problems)
    with pytest.raises(ValueError, match="altered"):
        promote(served, "staging", "production", settings=FREE)
