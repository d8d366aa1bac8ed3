"""Supervised fine-tuning: base training, cold start, the second SFT and distillation."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1kit import chat, models, parallel, random
from r1kit.engine import Engine, Log, learning_rate, open_engine, shared_micro_batches
from r1kit.logprobs import response_logprobs
from r1kit.resume import CheckpointConfig, Checkpoints, digest_tokens
from r1kit.rows import SftRow
from r1kit.schema import CONDUCT, shaping
from r1kit.watch import FiniteWatch, Watch


class SftConfig(CheckpointConfig):
    """One supervised training. The defaults are the paper's cold start (arXiv 2501.12948)."""

    learning_rate: float = Field(default=5e-5, gt=0)
    """Peak learning rate."""
    final_learning_rate_ratio: float = Field(default=0.1, ge=0, le=1)
    """Last learning rate as a share of the peak."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    epochs: float = Field(default=2.0, gt=0)
    """Passes over the data, unless `max_steps` ends it earlier."""
    max_steps: int | None = Field(default=None, gt=0)
    """Most optimizer steps."""
    batch_size: int = Field(default=128, gt=0)
    """Rows in an optimizer step."""
    shuffle: bool = True
    """A new order each epoch; otherwise the rows' own order, for a curriculum."""
    max_length_tokens: int = Field(default=32768, gt=1)
    """A longer row is dropped, and counted."""
    micro_batch_tokens: int = Field(default=16384, gt=0)
    """Most tokens in one forward pass. Rows lie end to end in it, none sees another, and nothing is padded."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    """AdamW moment decays."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    watch: Annotated[FiniteWatch, CONDUCT] = FiniteWatch()
    """When the training stops because it is dead."""


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and of the response to learn, the end token included."""

    prompt: Sequence[int]
    response: Sequence[int]

    @property
    def num_tokens(self) -> int:
        """Length of both."""
        return len(self.prompt) + len(self.response)


def examples(tokenizer: PreTrainedTokenizerBase, rows: Sequence[SftRow], system: str | None = None) -> list[Example]:
    """Token ids of rows through the tokenizer's own chat template."""
    result = []
    for row in rows:
        ids, num_prompt = chat.training_ids(tokenizer, row.prompt, row.response, system)
        result.append(Example(ids[:num_prompt], ids[num_prompt:]))
    return result


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[SftRow],
    config: SftConfig,
    output: Path,
    *,
    seed: int,
    checkpoints: Path,
    log: Log,
    say: Callable[[str], None],
    system: str | None = None,
    made_from: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, float]:
    """Train on rows (see `train`) and write the model directory."""
    chat.check_template(tokenizer)
    encoded = examples(tokenizer, rows, system)
    metrics = train(model, encoded, config, seed=seed, checkpoints=checkpoints, log=log, say=say, made_from=made_from)
    models.save(model, tokenizer, output)
    return metrics


def num_steps(num_rows: int, config: SftConfig) -> int:
    """Optimizer steps of a training over so many rows."""
    steps = max(1, math.ceil(num_rows * config.epochs / config.batch_size))
    return min(steps, config.max_steps or steps)


def train(
    model: PreTrainedModel,
    examples: Sequence[Example],
    config: SftConfig,
    *,
    seed: int,
    checkpoints: Path,
    log: Log,
    say: Callable[[str], None] = lambda line: None,
    made_from: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, float]:
    """Fit the model to the responses, in place: mean cross-entropy over response tokens of a step's rows.

    The prompt gets no loss. Killed at any instant and called again with the same arguments, it ends in the same
    bits (same machine and thread count).

    Args:
        checkpoints: folder that survives kills.
        made_from: digests of what else the result depends on, by name: the model it began from.

    Returns:
        Metrics of the whole training, and of resuming (`Checkpoints.finish`).

    Raises:
        ValueError: where no row fits `max_length_tokens`, `checkpoints` holds those of
            another training, or this one is dead (`config.watch`).
    """
    kept = [example for example in examples if example.num_tokens <= config.max_length_tokens]
    if not kept:
        raise ValueError(
            f"none of {len(examples)} rows fits max_length_tokens={config.max_length_tokens}: raise it or give rows"
        )
    total = num_steps(len(kept), config)
    order = random.Order(len(kept), seed, "sft", shuffle=config.shuffle)
    rows = digest_tokens((example.prompt, example.response) for example in kept)
    identity = {"settings": shaping(config), "seed": seed, "rows": rows, "made_from": dict(made_from)}
    saves = Checkpoints(checkpoints, config, identity, say)
    engine = open_engine(model, config)
    done, loss, watch = 0, math.nan, Watch()
    if saved := saves.newest(total):
        engine.load(saved.tensors)
        done, loss, watch = saved.step, saved.state["loss"], Watch.model_validate(saved.state["watch"])
        del saved  # as large as model and optimizer together
    engine.model.train()
    for step in range(done, total):
        batch = [kept[index] for index in order.take(step * config.batch_size, config.batch_size)]
        loss = _accumulate(engine, batch, config.micro_batch_tokens)
        rate = learning_rate(
            step, total, config.learning_rate, config.warmup_steps, config.schedule, config.final_learning_rate_ratio
        )
        norm = engine.step(rate)
        tokens = sum(example.num_tokens for example in batch)
        metrics = {"loss": loss, "gradient_norm": norm, "learning_rate": rate, "tokens": float(tokens)}
        watch = watch.after_update(metrics)
        log(step + 1, total, metrics | watch.metrics())
        saves.stop_if_dead(step + 1, watch.alarm(config.watch))
        if saves.due(step + 1, total):
            state = {"loss": loss, "watch": watch.model_dump()}
            saves.save(step + 1, engine.tensors(), state, good_step=step + 1 - watch.longest(config.watch))
    engine.finish()
    model.eval()
    return {
        "loss": loss,
        "steps": float(total),
        "rows": float(len(kept)),
        "rows_too_long": float(len(examples) - len(kept)),
        **saves.finish(),
    }


def _accumulate(engine: Engine, batch: Sequence[Example], micro_batch_tokens: int) -> float:
    """Gradients of the mean loss over all response tokens, whatever the micro-batches and the number of processes; the
    loss."""
    num_targets = sum(len(example.response) for example in batch)
    total = 0.0
    for rows, weight in shared_micro_batches([example.num_tokens for example in batch], micro_batch_tokens):
        prompts, responses = [batch[row].prompt for row in rows], [batch[row].response for row in rows]
        logprobs, _, _ = response_logprobs(engine.model, prompts, responses)
        loss = -weight * logprobs.sum() / num_targets
        engine.backward(loss)
        total += float(loss.detach())
    return parallel.total({"loss": total})["loss"]
