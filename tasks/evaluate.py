"""Evaluation of one model on the benchmarks, after every stage that makes one."""

from typing import Any

from tasks.stage import StageContext, StageOutput


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {"evaluate": config.evaluate, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model, benchmarks. outputs: evaluation (JSON)."""
    from r1kit import models
    from r1kit.evaluation import evaluate
    from r1kit.rows import Problem, read_rows
    from tasks.machine import prepare_torch, verifier_pool

    prepare_torch(context.config.runtime)
    model, tokenizer = models.load(context.inputs["model"], context.config.model.dtype)
    with verifier_pool(context.config.runtime) as pool:
        evaluation = evaluate(
            model,
            tokenizer,
            list(read_rows(context.inputs["benchmarks"], Problem)),
            pool,
            context.config.evaluate,
            seed=context.seed,
            name=context.variant,
            log=context.log,
            system=context.config.system_prompt,
        )
    path = context.workdir / "evaluation.json"
    path.write_text(evaluation.model_dump_json(indent=1))
    return StageOutput({"evaluation": ("evaluation", path)}, evaluation.metrics())
