"""The retraining on a schedule: a real Prefect server, a deployment, a worker that carries runs out."""

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.flows.conftest import WholeRun
from tests.flows.copies import RECIPE, Copy, finish, with_status

pytestmark = pytest.mark.timeout(600)

DEPLOY = ("deploy", "--profile", "micro", "--cron", "30 4 * * 2")
SECONDS_TO_CARRY_OUT = 180.0


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The answer of Prefect's API."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}{path}", data=content, headers={"Content-Type": "application/json"})
    for attempt in range(60):
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == 59:  # its SQLite was locked for a moment: it asks to be asked again
                raise
            time.sleep(1)
    return None


@contextlib.contextmanager
def working(copy: Copy) -> Iterator[None]:
    """`r1 deploy --worker` is at work; it stops at Ctrl-C and leaves nothing behind."""
    process = copy.with_variables(PREFECT_WORKER_QUERY_SECONDS="1").start(*DEPLOY, "--worker")
    try:
        yield
        os.killpg(process.pid, signal.SIGINT)
        finish(process, timeout=60)
        assert copy.left_processes() == {}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def planned(url: str, deployment: str) -> bool:
    """Whether the server has planned a run by the deployment's schedule; it looks every few seconds."""
    runs = ask(url, "/flow_runs/filter", {"deployments": {"id": {"any_": [deployment]}}})
    return any(run["state_type"] == "SCHEDULED" and run["auto_scheduled"] for run in runs)


def carried_out(url: str, deployment: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The end of a flow run, asked for now."""
    run = ask(url, f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})
    deadline = time.monotonic() + SECONDS_TO_CARRY_OUT
    while time.monotonic() < deadline:
        run = ask(url, f"/flow_runs/{run['id']}")
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run
        time.sleep(0.5)
    raise AssertionError(f"the worker did not carry the run out: {run['state']}")


def test_deploy_puts_the_retraining_on_a_schedule(whole: WholeRun) -> None:
    url = whole.copy.environment["PREFECT_API_URL"]
    done = whole.copy.r1(*DEPLOY, "--json")
    assert done.code == 0, done.err
    again = whole.copy.r1(*DEPLOY, "--json", "--set", "evaluate.transcripts=2")
    assert again.json["deployment_id"] == done.json["deployment_id"], "doing it again replaces it"
    deployment = ask(url, "/deployments/name/retrain/scheduled")
    assert deployment["id"] == done.json["deployment_id"] and deployment["work_pool_name"] == "r1kit"
    assert [(s["schedule"]["cron"], s["schedule"]["timezone"], s["active"]) for s in deployment["schedules"]] == [
        ("30 4 * * 2", "UTC", True)
    ]
    assert deployment["parameters"]["overrides"] == ["evaluate.transcripts=2"]
    assert ask(url, "/work_pools/r1kit")["type"] == "process"


def test_a_worker_carries_runs_out(whole: WholeRun) -> None:
    url = whole.copy.environment["PREFECT_API_URL"]
    assert whole.copy.r1(*DEPLOY, "--json").code == 0  # the pool is there, whichever test comes first
    earlier = whole.copy.summary()
    with working(whole.copy):
        deadline = time.monotonic() + 60
        while not ask(url, "/work_pools/r1kit/workers/filter", {}):
            assert time.monotonic() < deadline, "no worker has come"
            time.sleep(0.5)
        deployment = ask(url, "/deployments/name/retrain/scheduled")
        deadline = time.monotonic() + 120
        while not planned(url, deployment["id"]):
            assert time.monotonic() < deadline, "cron plans no runs"
            time.sleep(0.5)
        parameters = deployment["parameters"]
        good = carried_out(url, deployment["id"], parameters)
        bad = carried_out(url, deployment["id"], {**parameters, "overrides": ["zero.stepz=1"]})
    assert good["state_type"] == "COMPLETED", good["state"]["message"]
    summary = whole.copy.summary()
    assert summary["run_id"] != earlier["run_id"] and summary["status"] == "finished"
    assert with_status(summary, "cached") == RECIPE
    assert summary["code_digest"] == whole.copy.summary(whole.run_id)["code_digest"], "the worker ran the copy's code"
    registered = "{name}/{version}".format(**summary["registered"])
    assert good["state"]["message"] == f"nothing new: {registered} stands"
    assert bad["state_type"] == "FAILED" and "zero.stepz" in bad["state"]["message"]


def test_deploy_refuses_what_cannot_work(whole: WholeRun) -> None:
    for copy, options, word in (
        (whole.copy.with_variables(PREFECT_API_URL=""), DEPLOY, "PREFECT_API_URL"),
        (whole.copy.with_variables(PREFECT_API_URL="http://127.0.0.1:9/api"), DEPLOY, "http://127.0.0.1:9/api"),
        (whole.copy, ("deploy", "--profile", "micro", "--cron", "sometimes"), "'sometimes'"),
    ):
        done = copy.r1(*options)
        assert done.code == 1 and done.out == ""
        assert done.err.startswith("error: ") and word in done.err and len(done.err.splitlines()) == 1, done.err
