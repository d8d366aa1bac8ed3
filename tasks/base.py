"""The base model: fetched and put into one form, or a tiny Llama trained from scratch where the profile names none."""

from pathlib import Path
from typing import Any

from tasks.artifacts import digest_directory
from tasks.stage import StageContext, StageOutput


def config_slice(config: Any) -> dict[str, Any]:
    """What this stage's result depends on; of a model directory, its bytes."""
    slice_: dict[str, Any] = {"model": config.model}
    if config.model.source == "scratch":
        slice_ |= {"base": config.base, "system": config.system}
    elif (directory := Path(config.model.source).expanduser()).is_dir():
        slice_["digest"] = digest_directory(directory)
    return slice_


def run(context: StageContext) -> StageOutput:
    """inputs: pretrain (only from scratch). outputs: model."""
    from r1kit import chat, models, parallel, sft, tinyworld
    from r1kit.rows import SftRow, read_rows
    from tasks.machine import prepare_torch

    prepare_torch(context.config.runtime)
    config = context.config
    output = context.workdir / "model"
    if config.model.source == "scratch":
        tokenizer = tinyworld.tokenizer()
        metrics = sft.fit(
            models.make_llama(config.model.scratch, tokenizer, context.seed),
            tokenizer,
            read_rows(context.inputs["pretrain"], SftRow),
            config.base,
            output,
            seed=context.seed,
            checkpoints=context.workdir / "checkpoints",
            log=context.log,
            say=context.say,
            made_from=context.digests,
            system=config.system_prompt,
        )
        return StageOutput({"model": ("model", output)}, metrics)
    from tasks.hub import fetch_model

    outputs = {"model": ("model", output)}
    if parallel.rank():  # one process is enough to fetch it
        return StageOutput(outputs, {})
    context.say(f"fetching {config.model.source}")
    model, tokenizer = fetch_model(config.model, context.cache_dir)
    chat.check_template(tokenizer)
    models.save(model, tokenizer, output)
    return StageOutput(outputs, {"parameters": float(model.num_parameters())})
