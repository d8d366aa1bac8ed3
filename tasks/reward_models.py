"""The reward models of preference RL: helpfulness from pairs, harmlessness from single responses."""

from typing import Any

from tasks.stage import StageContext, StageOutput, within


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {"reward_models": config.reward_models, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model (base, the backbone), preferences. outputs: helpful, harmless."""
    from r1kit import models, reward_model
    from r1kit.resume import METRICS as RESUME_METRICS
    from r1kit.rows import PreferencePair, read_rows
    from tasks.machine import prepare_torch

    prepare_torch(context.config.runtime)
    pairs = read_rows(context.inputs["preferences"], PreferencePair)
    policy, tokenizer = models.load(context.inputs["model"], context.config.model.dtype)
    outputs: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    kinds: tuple[tuple[reward_model.Kind, reward_model.RewardModelConfig], ...] = (
        ("helpful", context.config.reward_models.helpful),
        ("harmless", context.config.reward_models.harmless),
    )
    for kind, config in kinds:
        judge, figures = reward_model.train(
            policy,
            tokenizer,
            pairs,
            config,
            kind=kind,
            seed=context.seed,
            checkpoints=context.workdir / f"checkpoints-{kind}",
            log=within(context.log, kind),
            say=context.say,
            made_from=context.digests,
        )
        judge.save(context.workdir / kind, {n: v for n, v in figures.items() if n not in RESUME_METRICS})
        outputs[kind] = ("reward_model", context.workdir / kind)
        metrics |= {f"{kind}_{name}": value for name, value in figures.items()}
    return StageOutput(outputs, metrics)
