"""Putting the retraining on a schedule: the deployment, its work pool, a worker."""

import contextlib
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.workspace import REPOSITORY

DEPLOYMENT = "scheduled"
ENTRYPOINT = "flows/retrain.py:retrain"


@dataclass(frozen=True)
class Deployed:
    """What was registered with the server."""

    deployment: str
    deployment_id: str
    work_pool: str
    cron: str
    timezone: str

    @property
    def worker_command(self) -> str:
        """Starts a worker that carries the runs out."""
        return f"{Path(sys.executable).parent / 'prefect'} worker start --pool {self.work_pool}"


def deploy(parameters: dict[str, Any], *, pool: str, cron: str, timezone: str, active: bool = True) -> Deployed:
    """Register the flow `retrain` with the server at PREFECT_API_URL, with a schedule and a process work pool.

    Doing it again replaces the schedule. Raises ValueError where no server is named, or the cron is none.
    """
    server_url()
    from prefect import Flow, get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.exceptions import ObjectAlreadyExists

    try:
        schedule = CronSchedule(cron=cron, timezone=timezone)
    except ValueError as error:
        raise ValueError(f"cron {cron!r} in time zone {timezone!r} is not a schedule: {_reason(error)}") from None
    with get_client(sync_client=True) as client, contextlib.suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
    flow: Any = Flow.from_source(source=str(REPOSITORY), entrypoint=ENTRYPOINT)
    with contextlib.redirect_stdout(io.StringIO()):  # its advice is not ours
        deployment_id = flow.deploy(
            name=DEPLOYMENT,
            work_pool_name=pool,
            schedule=schedule,
            parameters=parameters,
            paused=not active,
            concurrency_limit=1,
            build=False,
            push=False,
            print_next_steps=False,
            description="Runs the recipe on a schedule and registers a candidate; what has not changed is reused.",
        )
    return Deployed(f"retrain/{DEPLOYMENT}", str(deployment_id), pool, cron, timezone)


def work(pool: str) -> int:
    """Be a worker until stopped; the exit code comes back."""
    server_url()
    return subprocess.call([sys.executable, "-m", "prefect", "worker", "start", "--pool", pool], cwd=REPOSITORY)


def server_url() -> str:
    """The Prefect server's address. Raises ValueError where none is named, or it does not answer."""
    from flows.server import answers

    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        raise ValueError(
            "no Prefect server is named: start one with `.venv/bin/prefect server start`, "
            "then set PREFECT_API_URL=http://127.0.0.1:4200/api and run this again"
        )
    if not answers(url):
        raise ValueError(f"no Prefect server answers at {url} (PREFECT_API_URL); start it, or correct the address")
    return url


def _reason(error: ValueError) -> str:
    return str(error).splitlines()[-1].split(" [type=")[0].strip()
