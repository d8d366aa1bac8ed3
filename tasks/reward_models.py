"""The reward models of preference RL: helpfulness from pairs, harmlessness from single responses."""

from typing import Any

from tasks.stage import StageContext, StageOutput


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {"reward_models": config.reward_models, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model (base, the backbone), preferences. outputs: helpful, harmless."""
    from r1kit import reward_model
    from r1kit.rows import PreferencePair, read_rows
    from tasks.machine import prepare_torch

    prepare_torch(context.config.runtime)
    pairs = list(read_rows(context.inputs["preferences"], PreferencePair))
    outputs: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}
    for route in ("helpful", "harmless"):
        own = [pair for pair in pairs if pair.route == route]
        if not own:
            raise ValueError(f"data.preferences has no {route} pairs: add a source of them, or switch stages.prefer off")
        output = context.workdir / route
        report = reward_model.train(
            context.inputs["model"],
            own,
            route,
            getattr(context.config.reward_models, route),
            output,
            seed=context.seed,
            checkpoints=context.workdir / f"checkpoints-{route}",
            log=context.log,
            say=context.say,
        )
        outputs[route] = ("reward_model", output)
        metrics |= {f"{route}_{name}": value for name, value in report.metrics().items()}
        details[route] = report.model_dump(mode="json")
    return StageOutput(outputs, metrics, details)
