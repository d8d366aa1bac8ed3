"""Evaluation of one model on the benchmarks, after every stage that makes one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.stage import StageContext, StageOutput


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {"evaluate": config.evaluate, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model, benchmarks; optionally preferences with helpful and harmless. outputs: evaluation (JSON).

    With reward models the general prompts of held-out pairs are scored too, as benchmark `general`.
    """
    from r1kit import chat, models, parallel
    from r1kit.evaluation import evaluate
    from r1kit.rows import Problem, read_rows
    from tasks.machine import prepare_torch, verifier_pool

    prepare_torch(context.config.runtime)
    model, tokenizer = models.load(context.inputs["model"], context.config.model.dtype)
    general, preference = _judged(context.inputs, chat.opens_think(tokenizer))
    with verifier_pool(context.config.runtime) as pool:
        evaluation = evaluate(
            model,
            tokenizer,
            [*(row for row in read_rows(context.inputs["benchmarks"], Problem) if row.verifier != "none"), *general],
            pool,
            context.config.evaluate,
            seed=context.seed,
            name=context.variant,
            log=context.log,
            system=context.config.system_prompt,
            preference=preference,
        )
    path = context.workdir / "evaluation.json"
    if parallel.rank() == 0:
        path.write_text(evaluation.model_dump_json(indent=1))
    return StageOutput({"evaluation": ("evaluation", path)}, evaluation.metrics())


def _judged(inputs: Mapping[str, Path], opens_think: bool) -> tuple[list[Any], Any]:
    """Held-out general prompts and the reward models that score them, where both were given."""
    if not {"preferences", "helpful", "harmless"} <= inputs.keys():
        return [], None
    from r1kit.preference import general_prompts, load_preference
    from r1kit.rows import PreferencePair, read_rows

    prompts = general_prompts(read_rows(inputs["preferences"], PreferencePair), split="heldout")
    return (
        [prompt.model_copy(update={"benchmark": "general"}) for prompt in prompts],
        load_preference(inputs["helpful"], inputs["harmless"], opens_think),
    )
