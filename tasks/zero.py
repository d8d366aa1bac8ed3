"""R1-Zero: GRPO straight from the base model, with accuracy and format as its only rewards."""

from typing import Any

from tasks.stage import StageContext, StageOutput


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {"zero": config.zero, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model (base), problems. outputs: model."""
    from r1kit.reinforce import reinforce
    from r1kit.rows import Problem, read_rows
    from tasks.machine import prepare_torch, verifier_pool

    prepare_torch(context.config.runtime)
    output = context.workdir / "model"
    with verifier_pool(context.config.runtime) as pool:
        metrics = reinforce(
            context.inputs["model"],
            read_rows(context.inputs["problems"], Problem),
            context.config.zero,
            output,
            pool=pool,
            seed=context.seed,
            checkpoints=context.workdir / "checkpoints",
            log=context.log,
            say=context.say,
            made_from=context.digests,
            system=context.config.system_prompt,
            dtype=context.config.model.dtype,
        )
    return StageOutput({"model": ("model", output)}, metrics)
