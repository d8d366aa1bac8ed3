"""The reward models of preference RL, a stage each: helpfulness from pairs, harmlessness from single responses."""

from typing import Any, cast

from tasks.stage import StageContext, StageOutput


def config_slice(config: Any, kind: str) -> dict[str, Any]:
    """What this stage's result depends on: the settings of one kind, so that the other one stays as it is."""
    settings = getattr(config.reward_models, kind)
    return {"reward_models": {kind: settings}, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model (base, the backbone), preferences. outputs: reward_model.

    Details: `calibration`, the bins of the reliability diagram on held-out pairs.
    """
    from r1kit import models, reward_model
    from r1kit.resume import METRICS as RESUME_METRICS
    from r1kit.rows import PreferencePair, read_rows
    from tasks.machine import prepare_torch

    prepare_torch(context.config.runtime)
    kind = cast(reward_model.Kind, context.variant)
    policy, tokenizer = models.load(context.inputs["model"], context.config.model.dtype)
    judge, found = reward_model.train(
        policy,
        tokenizer,
        read_rows(context.inputs["preferences"], PreferencePair),
        getattr(context.config.reward_models, kind),
        kind=kind,
        seed=context.seed,
        checkpoints=context.workdir / "checkpoints",
        log=context.log,
        say=context.say,
        made_from=context.digests,
    )
    output = context.workdir / "reward_model"
    judge.save(output, {name: value for name, value in found.metrics.items() if name not in RESUME_METRICS})
    details = {"calibration": [bin_.model_dump() for bin_ in found.calibration]}
    return StageOutput({"reward_model": ("reward_model", output)}, found.metrics, details)
