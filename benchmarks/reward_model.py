"""A harmlessness reward model on real pairs, against chance and against length: `make bench-reward-model`.

SmolLM2-135M-Instruct, fetched and converted once, is trained on comparisons of Anthropic's HH (harmless-base) as stage
`reward_models-harmless` does it, on as many pairs as go into about a quarter of an hour on two free cores, and judges
pairs of prompts that it has not seen. Beside it: always the first response, the longer one, the shorter one.

    make bench-reward-model ARGS="--pairs 128 --heldout 200"     # a few minutes

Prints its progress, and last one JSON object.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import work
from benchmarks.duel import say
from benchmarks.real_rows import raw_paths
from r1kit.data.config import SourceEntry
from r1kit.data.table import SOURCES
from r1kit.random import generator
from r1kit.rows import PreferencePair

SOURCE = "hh_harmless"
HELDOUT_SHARE = 0.3
"""Of the source's pairs, by prompt: more than a run of the recipe holds out, for a narrower interval."""


def pairs(split: str, count: int, seed: int) -> list[PreferencePair]:
    """`count` pairs of a split, drawn by the seed."""
    entry = SourceEntry(source=SOURCE, limit=None, options={"heldout_share": HELDOUT_SHARE})
    rows = [row for row in _rows(entry) if row.split == split]
    order = generator(seed, "bench", split).permutation(len(rows))
    return [rows[place] for place in order[:count]]


def _rows(entry: SourceEntry) -> Iterator[PreferencePair]:
    for item in SOURCES[SOURCE].rows("preferences", entry, raw_paths(SOURCE), 0):
        row = getattr(item, "row", None)
        if isinstance(row, PreferencePair):
            yield row


def against(right: Sequence[float], baseline: Sequence[float]) -> dict[str, Any]:
    """A baseline's accuracy, and how much more the model has on the same pairs, both with 95 % intervals."""
    from r1kit.statistics import bootstrap_mean, clustered_share

    gain = bootstrap_mean([a - b for a, b in zip(right, baseline, strict=True)], "bench")
    return {"accuracy": _shown(clustered_share(baseline, 1)), "model_less_this": _shown(gain)}


def _shown(interval: Any) -> list[float]:
    return [round(value, 4) for value in (interval.value, interval.low, interval.high)]


def main() -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=448, help="pairs to train on (448)")
    parser.add_argument("--heldout", type=int, default=400, help="pairs to judge, at most 720 (400)")
    parser.add_argument("--max-length", type=int, default=192, help="tokens read, the last ones (192)")
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    print(json.dumps(measure(options)))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train, judge, compare."""
    import torch

    from r1kit import models, reward_model
    from r1kit.statistics import agreement

    torch.set_num_threads(options.threads)
    config = reward_model.RewardModelConfig(
        learning_rate=options.learning_rate, warmup_steps=2, batch_size=options.batch_size,
        max_length_tokens=options.max_length, micro_batch_tokens=2048, checkpoint_every_steps=10_000,
    )  # fmt: skip
    rows = pairs("train", options.pairs, options.seed)
    heldout = pairs("heldout", options.heldout, options.seed)
    policy, tokenizer = models.load(work.smollm2())
    say(f"{len(rows)} pairs to train on, {len(heldout)} of other prompts to judge")
    started = time.perf_counter()

    def log(step: int, total: int, metrics: Any) -> None:
        say(f"step {step} of {total}: loss {metrics['loss']:.3f}, {time.perf_counter() - started:.0f} s")

    with tempfile.TemporaryDirectory() as folder:
        judge, found = reward_model.train(
            policy, tokenizer, [*rows, *heldout], config, kind="harmless", seed=options.seed,
            checkpoints=Path(folder), log=log,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    judged = found.pairs
    right = agreement([pair.margin for pair in judged], [0.0] * len(judged)).tolist()
    longer = agreement([float(pair.excess) for pair in judged], [0.0] * len(judged)).tolist()
    baselines = {
        "always the first of the two": [float(pair.first_preferred) for pair in judged],
        "the longer one": longer,
        "the shorter one": [1 - value for value in longer],
    }
    figures = found.metrics
    return {
        "benchmark": "reward_model",
        "model": "SmolLM2-135M-Instruct",
        "data": f"{SOURCE}, the origin's test split divided by prompt",
        "kind": judge.kind,
        "train_pairs": len(rows),
        "heldout_pairs": len(judged),
        "steps": int(figures["steps"]),
        "settings": config.model_dump(include={"learning_rate", "batch_size", "max_length_tokens", "warmup_steps"}),
        "seconds": round(seconds, 1),
        "threads": options.threads,
        "accuracy": [round(figures[name], 4) for name in ("agreement", "agreement_low", "agreement_high")],
        "baselines": {name: against(right, values) for name, values in baselines.items()},
        "single_responses_right": round(figures["accuracy"], 4),
        "calibration_error": round(figures["calibration_error"], 4),
        "calibration": [
            {"from": bin_.low, "count": bin_.count, "predicted": round(bin_.predicted, 3),
             "harmless": _shown(bin_.happened)}
            for bin_ in found.calibration
        ],
        "log_loss": round(figures["log_loss"], 4),
        "length": {
            name: round(figures[name], 4)
            for name in ("longer_preferred", "longer_scored_higher", "length_bias", "length_correlation",
                         "agreement_longer", "agreement_shorter")
            if name in figures
        },
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
