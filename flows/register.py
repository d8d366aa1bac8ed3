"""Registration as a Prefect task. Never cached: the ledger itself knows what is registered already."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.register import register
from tasks.workspace import find_workspace


@task(name="register", task_run_name="register", cache_policy=NO_CACHE, persist_result=False)
def register_task(name: str, run_id: str, reference: str) -> dict[str, Any]:
    """Register the model of that reference as a candidate."""
    registered = register(find_workspace(), name=name, run=run_id, reference=reference)
    return {"name": registered.name, "version": registered.version, "new": registered.new}
