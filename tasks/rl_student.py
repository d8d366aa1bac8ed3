"""A student trained by RL alone for the compute of its distillation: the paper's comparison (2501.12948, 4.1)."""

import math
from typing import TYPE_CHECKING, Any

from tasks.stage import StageContext, StageOutput

if TYPE_CHECKING:
    from r1kit.config import StudentConfig

# Passes over a token, in units of 2 * parameters FLOPs: a training pass is a forward and a backward of twice its
# cost; a GRPO step samples (1), trains (3) and reads the reference (1).
_SFT_PASSES, _GRPO_PASSES = 3, 5


def config_slice(config: Any, student: str = "") -> dict[str, Any]:
    """What this stage's result depends on: R1-Zero's settings, and the compute of the student's distillation."""
    from tasks.distill import student_of

    sft = student_of(config, student).sft
    return {"zero": config.zero, "sft": sft, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model (where the student's distillation began), problems, curated, instructions. outputs: model."""
    from r1kit.reinforce import reinforce
    from r1kit.rows import Problem, SftRow, read_rows
    from tasks.distill import student_of
    from tasks.machine import prepare_torch, verifier_pool

    prepare_torch(context.config.runtime)
    num_rows = sum(len(read_rows(context.inputs[role], SftRow)) for role in ("curated", "instructions"))
    steps = num_steps(context.config.zero, student_of(context.config, context.variant), num_rows)
    config = context.config.zero.model_copy(update={"steps": steps})
    context.say(f"{config.steps} GRPO steps cost what distillation cost")
    output = context.workdir / "model"
    with verifier_pool(context.config.runtime) as pool:
        metrics = reinforce(
            context.inputs["model"],
            read_rows(context.inputs["problems"], Problem),
            config,
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


def num_steps(zero: Any, student: "StudentConfig", num_rows: int) -> int:
    """GRPO steps whose arithmetic is that of distilling so many rows, taking completions to be as long as those."""
    from r1kit import sft

    sft_rows = sft.num_steps(num_rows, student.sft) * student.sft.batch_size
    rl_rows = zero.prompts_per_step * zero.samples_per_prompt
    return math.ceil(sft_rows * _SFT_PASSES / (rl_rows * _GRPO_PASSES))
