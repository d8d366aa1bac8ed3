"""Promotion and rollback as flows: a record at the Prefect server where one is named; the ledger has the truth."""

import dataclasses
import os
from pathlib import Path
from typing import Any, cast

from prefect import Flow, flow

from flows.console import family_and_profile, load_config
from tasks import promotion
from tasks.lineage import Environment
from tasks.workspace import find_workspace


@flow(name="promote", flow_run_name="{model} to {to}", persist_result=False)
def promote(
    model: str, to: str, config: str, profile: str | None, overrides: list[str], approvers: str | None
) -> dict[str, Any]:
    """Let a model into an environment; see `tasks.promotion.promote`."""
    workspace = find_workspace()
    family, _ = family_and_profile(workspace, Path(config), profile)
    done = promotion.promote(
        workspace,
        model,
        cast("Environment", to),
        settings=load_config(workspace, Path(config), profile, overrides).promotion,
        name=family,
        approvers=Path(approvers) if approvers else None,
    )
    return dataclasses.asdict(done)


@flow(name="rollback", flow_run_name="{environment}", persist_result=False)
def rollback(environment: str, config: str, profile: str | None, reason: str) -> dict[str, Any]:
    """Give an environment back to the model before; see `tasks.promotion.rollback`."""
    workspace = find_workspace()
    family, _ = family_and_profile(workspace, Path(config), profile)
    done = promotion.rollback(workspace, cast("Environment", environment), name=family, reason=reason)
    return dataclasses.asdict(done)


def carry_out(what: Flow[..., dict[str, Any]], **parameters: Any) -> dict[str, Any]:
    """Run a flow: under the Prefect server that PREFECT_API_URL names, else without one."""
    return what(**parameters) if os.environ.get("PREFECT_API_URL") else what.fn(**parameters)
