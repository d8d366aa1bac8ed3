"""Distillation: a student learns the curated set by SFT alone."""

from typing import Any

from tasks.stage import StageContext, StageOutput


def config_slice(config: Any, student: str = "") -> dict[str, Any]:
    """What this stage's result depends on: the student of that name."""
    return {"student": _student(config, student), "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: curated, instructions, model (the base) or pretrain (a student from scratch). outputs: model."""
    from r1kit import models, sft, tinyworld
    from r1kit.rows import SftRow, read_rows
    from tasks.machine import prepare_torch

    prepare_torch(context.config.runtime)
    student = _student(context.config, context.variant)
    system = context.config.system_prompt
    if student.shape is None:
        model, tokenizer = models.load(context.inputs["model"], context.config.model.dtype)
    else:
        tokenizer = tinyworld.tokenizer()
        model = models.make_llama(student.shape, tokenizer, context.seed)
        sft.fit(
            model, tokenizer, read_rows(context.inputs["pretrain"], SftRow), student.pretrain,
            context.workdir / "base", seed=context.seed, checkpoints=context.workdir / "checkpoints-base",
            log=context.log, say=context.say, system=system,
        )  # fmt: skip
    curated = read_rows(context.inputs["curated"], SftRow)
    general = read_rows(context.inputs["instructions"], SftRow)
    output = context.workdir / "model"
    metrics = sft.fit(
        model, tokenizer, [*curated, *general], student.sft, output,
        seed=context.seed, checkpoints=context.workdir / "checkpoints",
        log=context.log, say=context.say, system=system,
    )  # fmt: skip
    return StageOutput({"model": ("model", output)}, metrics)


def _student(config: Any, name: str) -> Any:
    found = [student for student in config.distill.students if student.name == name]
    if not found:
        known = ", ".join(student.name for student in config.distill.students)
        raise ValueError(f"distill.students has no {name!r}: it has {known}")
    return found[0]
