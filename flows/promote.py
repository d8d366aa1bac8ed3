"""Promotion and rollback as flows: a record at the Prefect server where one is named; the ledger has the truth."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from flows.server import settle
from tasks.lineage import Environment
from tasks.workspace import find_workspace


def promote_model(**parameters: Any) -> dict[str, Any]:
    """Let a model into an environment; see `tasks.promotion.promote`."""
    return _carry_out(_promote, "promote", "{model} to {to}", parameters)


def roll_back(**parameters: Any) -> dict[str, Any]:
    """Give an environment back to the model before; see `tasks.promotion.rollback`."""
    return _carry_out(_rollback, "rollback", "{environment}", parameters)


def _promote(model: str, to: str, family: str, settings: dict[str, Any], approvers: str | None) -> dict[str, Any]:
    from r1kit.promotion import PromotionConfig
    from tasks import promotion

    done = promotion.promote(
        find_workspace(),
        model,
        cast("Environment", to),
        settings=PromotionConfig.model_validate(settings),
        name=family,
        approvers=Path(approvers) if approvers else None,
    )
    return dataclasses.asdict(done)


def _rollback(environment: str, family: str, reason: str) -> dict[str, Any]:
    from tasks import promotion

    done = promotion.rollback(find_workspace(), cast("Environment", environment), name=family, reason=reason)
    return dataclasses.asdict(done)


def _carry_out(
    what: Callable[..., dict[str, Any]], name: str, title: str, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Run it: under the Prefect server that PREFECT_API_URL names, else plainly, without the seconds of its import."""
    if not os.environ.get("PREFECT_API_URL"):
        return what(**parameters)
    settle(find_workspace())
    from prefect import flow

    decorate: Any = flow(name=name, flow_run_name=title, persist_result=False)
    return decorate(what)(**parameters)
