"""Preference RL (R1): rules for reasoning prompts throughout, reward models for general prompts in the last steps."""

from typing import Any

from tasks.stage import StageContext, StageOutput


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {"prefer": config.prefer, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model (Dev3), problems, preferences (their prompts), helpful, harmless, benchmarks. outputs: model.

    Benchmarks and the prompts of held-out pairs are never trained on: the alarm (`prefer.guard`) measures on them.
    """
    from r1kit import chat, models
    from r1kit.preference import general_prompts, load_preference
    from r1kit.reinforce import reinforce
    from r1kit.rows import PreferencePair, Problem, read_rows
    from tasks.machine import prepare_torch, verifier_pool

    prepare_torch(context.config.runtime)
    output = context.workdir / "model"
    pairs = read_rows(context.inputs["preferences"], PreferencePair)
    opens_think = chat.opens_think(models.load_tokenizer(context.inputs["model"]))
    with verifier_pool(context.config.runtime) as pool:
        metrics = reinforce(
            context.inputs["model"],
            read_rows(context.inputs["problems"], Problem),
            context.config.prefer,
            output,
            pool=pool,
            seed=context.seed,
            checkpoints=context.workdir / "checkpoints",
            log=context.log,
            say=context.say,
            made_from=context.digests,
            system=context.config.system_prompt,
            dtype=context.config.model.dtype,
            general=general_prompts(pairs, split="train"),
            heldout=[*read_rows(context.inputs["benchmarks"], Problem), *general_prompts(pairs, split="heldout")],
            preference=load_preference(context.inputs["helpful"], context.inputs["harmless"], opens_think),
        )
    return StageOutput({"model": ("model", output)}, metrics)
