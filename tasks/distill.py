"""Distillation: a student learns the curated set by SFT alone."""

from typing import Any

from tasks.stage import StageContext, StageOutput, within


def config_slice(config: Any, student: str = "") -> dict[str, Any]:
    """What this stage's result depends on: the student of that name."""
    return {"student": student_of(config, student), "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: curated, instructions, model (the base) or pretrain (a student from scratch).

    outputs: model; base, where the student is from scratch.
    """
    from r1kit import models, sft, tinyworld
    from r1kit.rows import SftRow, read_rows
    from tasks.machine import prepare_torch

    prepare_torch(context.config.runtime)
    student = student_of(context.config, context.variant)
    outputs: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    system = context.config.system_prompt
    if student.shape is None:
        model, tokenizer = models.load(context.inputs["model"], context.config.model.dtype)
    else:
        tokenizer = tinyworld.tokenizer()
        model = models.make_llama(student.shape, tokenizer, context.seed)
        before = sft.fit(
            model, tokenizer, read_rows(context.inputs["pretrain"], SftRow), student.pretrain,
            context.workdir / "base", seed=context.seed, checkpoints=context.workdir / "checkpoints-base",
            log=within(context.log, "pretrain"), say=context.say, system=system, made_from=context.digests,
        )  # fmt: skip
        outputs["base"] = ("model", context.workdir / "base")
        metrics |= {f"pretrain_{name}": value for name, value in before.items()}
    curated = read_rows(context.inputs["curated"], SftRow)
    general = read_rows(context.inputs["instructions"], SftRow)
    output = context.workdir / "model"
    metrics |= sft.fit(
        model, tokenizer, [*curated, *general], student.sft, output,
        seed=context.seed, checkpoints=context.workdir / "checkpoints",
        log=context.log, say=context.say, system=system, made_from=context.digests,
    )  # fmt: skip
    return StageOutput(outputs | {"model": ("model", output)}, metrics)


def student_of(config: Any, name: str) -> Any:
    """The student of that name. Raises ValueError where the list has none."""
    found = [student for student in config.distill.students if student.name == name]
    if not found:
        known = ", ".join(student.name for student in config.distill.students)
        raise ValueError(f"distill.students has no {name!r}: it has {known}")
    return found[0]
