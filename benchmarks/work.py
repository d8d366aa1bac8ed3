"""The models and prompts that both sides are given, and how many operations their work needs."""

import json
from pathlib import Path
from typing import Any

from benchmarks.duel import say
from benchmarks.environment import ROOT, bench_home


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


def grpo_flops(model: Path, prompts: int, prompt_tokens: int, samples: int, tokens: int) -> float:
    """Operations that a GRPO step needs at least: prompts once, sampling, a forward pass, a backward at twice that."""
    config = json.loads((model / "config.json").read_text())
    prompt = prompts * prompt_tokens * _forward(config, prompt_tokens / 2)
    answers = prompts * samples * tokens * _forward(config, prompt_tokens + tokens / 2)
    head = prompts * samples * tokens * 2 * config["hidden_size"] * config["vocab_size"]
    return 4 * (prompt + answers + head)


def sampling_flops(model: Path, prompts: int, prompt_tokens: int, samples: int, tokens: int) -> float:
    """Operations that sampling needs at least."""
    return grpo_flops(model, prompts, prompt_tokens, samples, tokens) / 4


def sft_flops(model: Path, rows: int, tokens: float, targets: float) -> float:
    """Operations that a supervised step needs at least, over rows of `tokens` with logits for `targets` of them."""
    config = json.loads((model / "config.json").read_text())
    body = rows * tokens * _forward(config, tokens / 2)
    return 3 * (body + rows * targets * 2 * config["hidden_size"] * config["vocab_size"])


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
