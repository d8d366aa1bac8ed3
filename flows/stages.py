"""A stage as a Prefect task: its cache key is the stage key, its result persists as JSON."""

from collections.abc import Callable
from typing import Any

from prefect import Task, task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.results import get_result_store
from prefect.runtime import task_run

from tasks.stage import StagePlan, StageResult

Run = Callable[[str], StageResult]
"""Runs a stage, given the id of the Prefect task run."""


def stage_task(plan: StagePlan, run: Run, *, refresh: bool) -> Task[[], dict[str, Any]]:
    """The Prefect task of a stage. Called, it runs the stage unless its key is cached.

    Args:
        plan: The stage.
        run: Does the work.
        refresh: Run it though it is cached: what it made is lost or altered.
    """

    def body() -> dict[str, Any]:
        return run(str(task_run.id or "")).model_dump(mode="json")

    return task(
        name=plan.stage,
        task_run_name=plan.name,
        version=plan.code[7:19],
        cache_policy=CacheKeyFnPolicy(cache_key_fn=lambda context, inputs: cache_key(plan.key)),
        persist_result=True,
        result_serializer="json",
        cache_result_in_memory=False,
        refresh_cache=refresh,
        retries=0,
    )(body)


def stored_result(key: str) -> StageResult | None:
    """What Prefect has kept under a stage key. A record cut off by a kill counts as none."""
    # A flow that keeps no result of its own looks for metadata nowhere; a task finds them in the record itself.
    store = get_result_store().model_copy(update={"metadata_storage": None})
    try:
        if not store.exists(cache_key(key)):
            return None
        return StageResult.model_validate(store.read(cache_key(key)).result)  # type: ignore[union-attr]
    except Exception:  # noqa: BLE001 - whatever is wrong with a record, the stage can run again
        return None


def cache_key(key: str) -> str:
    """A stage key as a file's name."""
    return key.removeprefix("sha256:")
