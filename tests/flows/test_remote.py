"""The whole recipe with an MLflow server, its artifacts and the ledger on a real S3 server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.flows.copies import RECIPE, Copy, digests, make_copy, with_status
from tests.tasks.seaweed import seaweed
from tests.tasks.tracking_server import mlflow_server

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """A copy whose run has ended, and everything but its data sets lies elsewhere."""
    parent = tmp_path_factory.mktemp("remote")
    with seaweed(parent / "s3") as store:
        store.client().create_bucket(Bucket="team")
        own = {**store.environment(), "MLFLOW_S3_ENDPOINT_URL": store.endpoint}
        with mlflow_server(
            parent, parent / "server.db", "s3://team/artifacts", through=False, variables=own
        ) as address:
            copy = make_copy(parent).with_variables(**own, MLFLOW_TRACKING_URI=address, R1_LEDGER="s3://team/ledger")
            done = copy.r1("run", "--profile", "micro")
            if done.code:
                pytest.fail(f"the run failed:\n{done.out}\n{done.err}")
            yield copy


def test_all_of_it_runs_and_lies_on_s3(remote: Copy) -> None:
    summary = remote.summary()
    assert summary["status"] == "finished" and with_status(summary, "ran") == RECIPE
    uris = {edge["artifact"]["uri"] for entry in remote.entries() for edge in entry["outputs"]}
    places = {uri.partition(":")[0] for uri in uris}
    assert places == {"s3", "file"}
    here = {uri.rpartition("/")[2] for uri in uris if uri.startswith("file:") and "/data/micro/" not in uri}
    assert here == {"summary.json", "resolved.yaml", "metrics.jsonl", "stages"}, (
        "more than the run's own folder is here"
    )
    assert not (remote.workspace / "ledger").exists() and not (remote.workspace / "mlflow.db").exists()


def test_again_nothing_is_computed_anew(remote: Copy) -> None:
    before = digests(remote.summary())
    again = remote.run()
    assert with_status(again, "ran") == set() and digests(again) == before


def test_an_auditor_on_another_machine_has_every_answer(remote: Copy, tmp_path: Path) -> None:
    """From another workspace, which has the public key alone; data sets and run folders are where the ledger says."""
    other = remote.with_variables(R1_HOME=str(tmp_path / "auditor"))
    keys = tmp_path / "auditor" / "keys"
    keys.mkdir(parents=True)
    (keys / "signing.pub").write_bytes((remote.workspace / "keys" / "signing.pub").read_bytes())
    name = remote.summary()["registered"]["name"]
    done = other.r1("audit", f"{name}/1", "--json", "--profile", "micro")
    assert done.code == 0, done.out + done.err
    report = json.loads(done.out)
    assert report["signature"] == "verified" and report["problems"] == []
    assert {step["stage"] for step in report["steps"]} >= {"data", "base", "zero", "cold_start", "reject", "prefer"}
    assert all(data["rows"] for data in report["data"])
    everything = other.r1("audit", "--all", "--json")
    assert everything.code == 0, everything.out + everything.err


def test_rows_are_traced_and_exports_made_from_what_lies_there(remote: Copy, tmp_path: Path) -> None:
    curated = next((remote.workspace / "cache" / "artifacts").rglob("curated*.parquet"))
    sample = pq.read_table(curated, columns=["id"]).column("id")[0].as_py()
    traced = remote.r1("trace", sample, "--json")
    assert traced.code == 0, traced.err
    exported = remote.r1("export", "r1", "--format", "all", "--out", str(tmp_path / "out"), "--profile", "micro")
    assert exported.code == 0, exported.err
