"""The models and prompts that both sides are given, and how many operations their work needs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.duel import say
from benchmarks.environment import ROOT, bench_home

Group = tuple[int, Sequence[int]]
"""Tokens of a prompt, and of each answer to it."""


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a model directory, fetched and converted once."""
    from r1kit import config as configuration
    from r1kit import models
    from tasks.hub import fetch_model

    folder = bench_home() / "models" / "smollm2"
    if not (folder / "ready").is_file():
        config = configuration.load(ROOT / "pipeline.yaml", "small")
        models.save(*fetch_model(config.model, bench_home() / "fetched"), folder)
        (folder / "ready").touch()
    return folder


def tiny() -> Path:
    """The tiny profile's base model, trained once as its stage `base` does (two to three minutes)."""
    from r1kit import config as configuration
    from r1kit import models, sft, tinyworld

    folder = bench_home() / "models" / "tiny"
    if not (folder / "ready").is_file():
        say("training the tiny profile's base model: two to three minutes, once")
        config = configuration.load(ROOT / "pipeline.yaml", "tiny")
        (source,) = config.data.pretrain
        tokenizer = tinyworld.tokenizer()
        sft.fit(
            models.make_llama(config.model.scratch, tokenizer, config.seed),
            tokenizer,
            list(tinyworld.pretrain(config.seed, source.limit or 44000)),
            config.base,
            folder,
            seed=config.seed,
            checkpoints=folder / "checkpoints",
            log=lambda step, total, metrics: say(f"step {step} of {total}") if step % 100 == 0 else None,
            say=say,
        )
        (folder / "ready").touch()
    return folder


def tiny_prompts(model: Path, count: int) -> list[str]:
    """Prompts of the tiny world, as its chat template puts them."""
    from r1kit import tinyworld
    from r1kit.models import load_tokenizer

    tokenizer = load_tokenizer(model)
    messages = [[{"role": "user", "content": problem.prompt}] for problem in tinyworld.problems(0, count)]
    return [str(tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True)) for m in messages]


def prompts_of(model: Path, count: int, tokens: int) -> list[str]:
    """Texts that the model's tokenizer makes exactly so many tokens of."""
    from r1kit.models import load_tokenizer

    tokenizer = load_tokenizer(model)
    words = [str(tokenizer.decode([token])).strip() for token in range(len(tokenizer))]
    words = [word for word in words if word.isascii() and word.isalpha()]
    found: list[str] = []
    for start in range(len(words)):
        text = " ".join(words[(start * 31 + place * 7) % len(words)] for place in range(tokens))
        for length in range(tokens, 0, -1):  # a word can take several tokens
            text = " ".join(text.split()[:length])
            if len(tokenizer(text)["input_ids"]) <= tokens:
                break
        if len(tokenizer(text)["input_ids"]) == tokens and text not in found:
            found.append(text)
        if len(found) == count:
            return found
    raise ValueError(f"{model} has no {count} texts of {tokens} tokens")


def forward_flops(model: Path, groups: Iterable[Group]) -> float:
    """Operations that one forward pass needs at least: a prompt once for its group, logits for answers alone."""
    config = json.loads((model / "config.json").read_text())
    head = 2 * config["hidden_size"] * config["vocab_size"]
    total = 0.0
    for prompt, answers in groups:
        total += prompt * _forward(config, prompt / 2)
        total += sum(tokens * (_forward(config, prompt + tokens / 2) + head) for tokens in answers)
    return total


def grpo_passes(kl_coefficient: float) -> int:
    """Forward passes that a GRPO step is worth: sampling, its own, a backward at twice that, and the reference's."""
    return 5 if kl_coefficient > 0 else 4


SFT_PASSES = 3
"""A forward pass, and a backward at twice that."""


def _forward(config: dict[str, Any], context: float) -> float:
    """Operations of one token's way through the layers, attending to `context` others."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    size = config.get("head_dim") or width // heads
    attention = 2 * width * size * (2 * heads + 2 * config["num_key_value_heads"]) + 4 * heads * size * context
    mlp = 3 * 2 * width * config["intermediate_size"]
    return config["num_hidden_layers"] * (attention + mlp)


WORDS = (
    "the", "a", "river", "stone", "house", "light", "walks", "over", "under", "and", "then", "slowly", "green", "old",
    "seven", "apple", "count", "sum", "of", "all", "that", "is", "left", "when", "two", "answer", "question", "think",
    "about", "number", "table", "wind", "letter", "open", "every", "small", "great", "follow",
)  # fmt: skip
"""For rows of text."""
