"""A stage whose body is the bodies of all that train or sample, one after another: what a launcher starts once."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1kit import parallel
from r1kit.config import Config
from tasks.stage import StageContext, StageOutput, body_of

sys.modules["tasks.chained"] = sys.modules[__name__]


@dataclasses.dataclass(frozen=True)
class Chain:
    """Stands in the place of the configuration: by it, processes find this module."""

    config: Config


def run(context: StageContext) -> StageOutput:
    """inputs: the prepared data. outputs: what each stage made, as `<stage>/<role>`; metrics likewise."""
    config: Config = context.config.config  # pyright: ignore[reportAttributeAccessIssue]
    outputs: dict[str, Any] = {}
    metrics: dict[str, float] = {}

    def stage(name: str, variant: str = "", /, **inputs: Path) -> Mapping[str, Path]:
        place = "/".join(filter(None, (name, variant)))
        workdir = context.workdir / place
        workdir.mkdir(parents=True, exist_ok=True)
        given = dataclasses.replace(
            context, name=name, variant=variant, config=config, workdir=workdir, inputs=inputs,
            digests=dict.fromkeys(inputs, "sha256:0"),
        )  # fmt: skip
        output = body_of(name).run(given)
        parallel.exchange(None)  # what rank 0 wrote is there for all, as it is between stages that are started singly
        outputs.update({f"{place}/{role}": made for role, made in output.outputs.items()})
        metrics.update({f"{place}/{metric}": float(value) for metric, value in output.metrics.items()})
        return {role: path for role, (_, path) in output.outputs.items()}

    data = context.inputs
    base = stage("base", pretrain=data["pretrain"])["model"]
    judges = {
        kind: stage("reward_models", kind, model=base, preferences=data["preferences"])["reward_model"]
        for kind in ("helpful", "harmless")
    }
    zero = stage("zero", model=base, problems=data["problems"])["model"]
    known = {"problems": data["problems"], "benchmarks": data["benchmarks"]}
    dev1 = stage("cold_start", model=base, chains=data["chains"], zero=zero, **known)["model"]
    dev2 = stage("reason", model=dev1, problems=data["problems"])["model"]
    curated = stage("reject", model=dev2, **known)["curated"]
    taught = {"curated": curated, "instructions": data["instructions"]}
    dev3 = stage("refine", model=base, **taught)["model"]
    judged = {"preferences": data["preferences"], **judges}
    r1 = stage("prefer", model=dev3, problems=data["problems"], benchmarks=data["benchmarks"], **judged)["model"]
    student = stage("distill", "half", pretrain=data["pretrain"], **taught)["base"]
    stage("rl_student", "half", model=student, problems=data["problems"], **taught)
    stage("evaluate", "r1", model=r1, benchmarks=data["benchmarks"], **judged)
    return StageOutput(outputs, metrics)
