"""Rejection sampling: Dev2 answers many times; what is correct, readable and uncontaminated is kept."""

from typing import Any

from tasks.stage import StageContext, StageOutput


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on."""
    return {"reject": config.reject, "system": config.system, "dtype": config.model.dtype}


def run(context: StageContext) -> StageOutput:
    """inputs: model (Dev2), problems, benchmarks. outputs: curated rows, and the decision on every sample."""
    from r1kit import parallel
    from r1kit.data.decontaminate import BenchmarkIndex
    from r1kit.harvest import harvest
    from r1kit.rejection import write_decisions
    from r1kit.rows import Problem, SftRow, read_rows, write_rows
    from tasks.machine import prepare_torch, verifier_pool

    prepare_torch(context.config.runtime)
    config = context.config.reject
    problems = [row for row in read_rows(context.inputs["problems"], Problem) if row.verifier != "none"]
    index = BenchmarkIndex(read_rows(context.inputs["benchmarks"], Problem))
    with verifier_pool(context.config.runtime) as pool:
        selection = harvest(
            context.inputs["model"],
            problems[: config.prompts],
            samples_per_prompt=config.samples_per_prompt,
            keep_per_prompt=config.keep_per_prompt,
            sampling=config.sampling,
            batch_size=config.batch_size,
            checkpoint=context.digests["model"],
            prefix="reject",
            pool=pool,
            seed=context.seed,
            workdir=context.workdir / "samples",
            log=context.log,
            system=context.config.system_prompt,
            dtype=context.config.model.dtype,
            contaminated=index.sampled,
        )
    if not selection.rows:
        raise ValueError(
            f"none of {len(selection.decisions)} samples was worth keeping ({selection.counts()}): "
            "train reason longer, or raise reject.prompts or reject.samples_per_prompt"
        )
    curated, decisions = context.workdir / "curated.parquet", context.workdir / "decisions.jsonl"
    if parallel.rank() == 0:
        write_rows(curated, selection.rows, SftRow)
        write_decisions(decisions, selection.decisions)
    return StageOutput(
        {"curated": ("sft_rows", curated), "decisions": ("decisions", decisions)},
        selection.metrics(),
        {"dropped": selection.counts()},
    )
