"""Cold start (Dev1): SFT from base on curated chains and on R1-Zero's own correct, readable samples."""

from typing import TYPE_CHECKING, Any

from tasks.stage import StageContext, StageOutput

if TYPE_CHECKING:
    from r1kit.rejection import Selection


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {"cold_start": config.cold_start, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model (base), chains, problems, benchmarks, optionally zero (R1-Zero).

    outputs: model, cold_start_data, and the decision on every sample of R1-Zero's.
    """
    from r1kit import models, parallel, sft
    from r1kit.rejection import Selection, write_decisions
    from r1kit.rows import SftRow, read_rows, write_rows
    from tasks.machine import prepare_torch

    prepare_torch(context.config.runtime)
    config = context.config.cold_start
    chains = list(read_rows(context.inputs["chains"], SftRow))[: config.max_chains]
    sampled = _own_samples(context) if "zero" in context.inputs else Selection([], [])
    own = sampled.rows[: config.max_zero_rows]
    context.say(f"{len(chains)} curated chains and {len(own)} of R1-Zero's own")
    data, decisions = context.workdir / "cold_start.parquet", context.workdir / "decisions.jsonl"
    if parallel.rank() == 0:
        write_rows(data, [*chains, *own], SftRow)
        write_decisions(decisions, sampled.decisions)
    model, tokenizer = models.load(context.inputs["model"], context.config.model.dtype)
    output = context.workdir / "model"
    metrics = sft.fit(
        model,
        tokenizer,
        [*chains, *own],
        config.sft,
        output,
        seed=context.seed,
        checkpoints=context.workdir / "checkpoints",
        log=context.log,
        say=context.say,
        made_from=context.digests,
        system=context.config.system_prompt,
    )
    metrics |= {
        "rows_curated": float(len(chains)),
        "rows_from_zero": float(len(own)),
        "samples_resumed_elsewhere": float(sampled.resumed_elsewhere),
    }
    outputs = {"model": ("model", output), "cold_start_data": ("sft_rows", data), "decisions": ("decisions", decisions)}
    return StageOutput(outputs, metrics, {"dropped": sampled.counts()})


def _own_samples(context: StageContext) -> "Selection":
    """R1-Zero's samples that are right, readable, in the question's language (arXiv 2501.12948, 2.3.1) and clean."""
    from r1kit.data.decontaminate import BenchmarkIndex
    from r1kit.harvest import harvest
    from r1kit.rows import Problem, read_rows
    from r1kit.sampler import SamplingConfig
    from tasks.machine import verifier_pool

    config = context.config.cold_start
    problems = [row for row in read_rows(context.inputs["problems"], Problem) if row.verifier != "none"]
    with verifier_pool(context.config.runtime) as pool:
        return harvest(
            context.inputs["zero"],
            problems[: config.zero_prompts],
            samples_per_prompt=config.zero_samples_per_prompt,
            keep_per_prompt=1,
            sampling=SamplingConfig(temperature=1.0, max_tokens=config.max_tokens),
            batch_size=config.batch_size,
            checkpoint=context.digests["zero"],
            prefix="zero",
            pool=pool,
            seed=context.seed,
            workdir=context.workdir / "samples",
            log=context.log,
            system=context.config.system_prompt,
            dtype=context.config.model.dtype,
            contaminated=BenchmarkIndex(read_rows(context.inputs["benchmarks"], Problem)).sampled,
        )
