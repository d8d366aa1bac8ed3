"""The second SFT (Dev3): from base again, on the curated set and general data."""

from typing import Any

from tasks.stage import StageContext, StageOutput


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {"refine": config.refine, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model (base), curated, instructions. outputs: model."""
    from r1kit import models, sft
    from r1kit.rows import SftRow, read_rows
    from tasks.machine import prepare_torch

    prepare_torch(context.config.runtime)
    model, tokenizer = models.load(context.inputs["model"], context.config.model.dtype)
    curated = read_rows(context.inputs["curated"], SftRow)
    general = read_rows(context.inputs["instructions"], SftRow)
    output = context.workdir / "model"
    metrics = sft.fit(
        model,
        tokenizer,
        [*curated, *general],
        context.config.refine,
        output,
        seed=context.seed,
        checkpoints=context.workdir / "checkpoints",
        log=context.log,
        say=context.say,
        made_from=context.digests,
        system=context.config.system_prompt,
    )
    return StageOutput({"model": ("model", output)}, metrics)
