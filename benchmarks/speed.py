"""r1kit against TRL and transformers on the same machine, turn about: `make bench-grpo`, `bench-sampling`, `bench-sft`.

    python -m benchmarks.speed grpo --rounds 5

Prints each round, and last one JSON object: for each row of work the ratio of speeds (median and range), seconds, peak
memory, the operations needed at least, and their share of the measured peak of matrix products.
"""

import argparse
import json
import os
import platform
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import work
from benchmarks.duel import duel, script
from benchmarks.environment import ROOT, python_of

Row = tuple[str, dict[str, Any], int]
"""Name, what both sides are given, forward passes that it is worth."""


def grpo_rows() -> Iterator[Row]:
    """Whole GRPO steps: with completions of equal length, and as the tiny profile's end by themselves."""
    smol = work.smollm2()
    for tokens, samples in ((45, 8), (256, 16)):
        config = _grpo_config(4, samples, 48, 0.0)
        given = {"model": str(smol), "prompts": work.prompts_of(smol, 4, tokens), "config": config}
        given["rival_batch"] = TRL_TOKENS // (tokens + 48) // samples * samples
        name = f"SmolLM2-135M, 4 prompts of {tokens} tokens, {samples} samples of 48"
        yield name, given | LIMIT, work.grpo_passes(config["kl_coefficient"])
    tiny = work.tiny()
    config = _grpo_config(32, 8, 64, 0.001)
    given = {"model": str(tiny), "prompts": work.tiny_prompts(tiny, 32), "config": config}
    name = "tiny profile, 32 prompts, 8 samples to where each ends, at most 64"
    yield name, given, work.grpo_passes(config["kl_coefficient"])


TRL_TOKENS = 5200
"""Tokens of a forward and backward pass of TRL's: the first row's 32 sequences in one; the second row's 64 would need
over 18 GB, and go group by group."""
LIMIT = {"to_the_limit": True}
"""Completions do not end before the limit, on either side."""


def _grpo_config(prompts: int, samples: int, limit: int, beta: float) -> dict[str, Any]:
    return {
        "prompts_per_step": prompts,
        "samples_per_prompt": samples,
        "sampling": {"max_tokens": limit},
        "kl_coefficient": beta,
        "micro_batch_tokens": 2048,
    }


QUESTIONS = (
    "Name a colour.",
    "What is the capital of France?",
    "Tom has 3 apples and buys 5 more. How many has he now?",
    "Write one sentence about the sea.",
    "Is 17 a prime number? Answer yes or no, and say why.",
    "Translate to French: good morning.",
    "List three animals that can fly.",
    "A train goes 60 km in an hour. How far does it go in three hours?",
)


def sampling_rows() -> Iterator[Row]:
    """Sampling alone: to the limit, and to where each answer ends."""
    from r1kit.models import load_tokenizer

    smol = work.smollm2()
    limit, samples = 48, 8
    prompts = work.prompts_of(smol, 8, 45)
    given = {"model": str(smol), "prompts": prompts, "samples": samples, "max_tokens": limit} | LIMIT
    yield "8 prompts of 45 tokens, 8 samples of 48", given, 1
    tokenizer = load_tokenizer(smol)
    texts = [
        str(tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False, add_generation_prompt=True))
        for q in QUESTIONS
    ]
    given = {"model": str(smol), "prompts": texts, "samples": samples, "max_tokens": 128}
    yield "8 questions, 8 answers to where each ends, at most 128 tokens", given, 1


def sft_rows() -> Iterator[Row]:
    """Supervised steps over rows of mixed lengths."""
    smol = work.smollm2()
    dice = random.Random(0)
    rows = []
    for number in range(512):
        words = work.WORDS
        size = round(10 ** dice.uniform(1.2, 2.6))  # 16 to 400 tokens, short ones as usual the most
        text = [dice.choice(words) for _ in range(size)]
        cut = max(1, size // 4)
        rows.append((f"{number} " + " ".join(text[:cut]), " " + " ".join(text[cut:])))
    given = {
        "model": str(smol),
        "rows": rows,
        "config": {"batch_size": 28, "micro_batch_tokens": 1024},  # as many at once as the rival
        "packs": 4,
        "pack_tokens": 1024,
    }
    yield "SmolLM2-135M, rows of 16 to 400 tokens, about 4096 a step", given, work.SFT_PASSES


def _necessary(model: Path, passes: int, groups: Iterable[work.Group]) -> float:
    return passes * work.forward_flops(model, groups)


ROWS = {"grpo": grpo_rows, "sampling": sampling_rows, "sft": sft_rows}


def main() -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=ROWS)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each side, after one that does not count")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of each side")
    arguments = parser.parse_args()
    python = python_of(ROOT / "benchmarks" / "trl.txt")
    results = []
    for name, given, passes in ROWS[arguments.kind]():
        if arguments.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            settings = Path(folder) / "work.json"
            settings.write_text(json.dumps(given | {"threads": arguments.threads}))
            ours = [sys.executable, "-m", "benchmarks.ours", arguments.kind, str(settings)]
            theirs = [str(python), script("theirs.py"), arguments.kind, str(settings)]
            necessary = partial(_necessary, Path(given["model"]), passes)
            results.append(duel(name, ours, theirs, arguments.rounds, arguments.threads, necessary))
            print(json.dumps(results[-1]), flush=True)
    machine = f"{platform.machine()}, {arguments.threads} threads"
    print(json.dumps({"benchmark": arguments.kind, "machine": machine, "rows": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
