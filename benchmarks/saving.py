"""What checkpoints cost: `make bench-checkpoint`.

GRPO is trained for a few steps at two sizes, profile `tiny` and a model of SmolLM2-135M's shape, and its checkpoint,
with both moments and the reference, is then saved and loaded several times. The last line is one JSON object: seconds
that training waits for a save, seconds until it is on the disk, seconds to load it, memory that saving takes beside the
tensors, and the share of the time that saving takes at the default interval.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from r1kit import checkpoint, grpo, models, tinyworld
from r1kit.config import load
from r1kit.grpo_config import GrpoConfig
from r1kit.rollout import Prompt
from r1kit.rows import Problem
from r1kit.sampler import Completion

ROOT = Path(__file__).resolve().parents[1]
AT_MOST = 0.05
REPEATS = 5


def tiny() -> tuple[PreTrainedModel, GrpoConfig]:
    """The tiny profile's model and its R1-Zero settings."""
    config = load(ROOT / "pipeline.yaml", "tiny")
    return models.make_llama(config.model.scratch, tinyworld.tokenizer(), 0), config.zero


def smollm2() -> tuple[PreTrainedModel, GrpoConfig]:
    """SmolLM2-135M's shape with random weights, and a small step: 4 prompts, 8 samples of up to 48 tokens."""
    shape = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    )  # fmt: skip
    config = GrpoConfig.model_validate(
        {"prompts_per_step": 4, "samples_per_prompt": 8, "sampling": {"max_tokens": 48}, "micro_batch_tokens": 1024}
    )
    return LlamaForCausalLM(shape), config


def reward(_: Sequence[Problem], completions: Sequence[Completion]) -> list[Mapping[str, float]]:
    """An arbitrary function of the tokens, so that every group has variance."""
    return [{"accuracy": float(sum(c.token_ids) % 2), "format": float(len(c.token_ids) % 2)} for c in completions]


def measure(name: str, model: PreTrainedModel, config: GrpoConfig, steps: int) -> dict[str, Any]:
    """Train for a few steps, the last but one of which is saved; then save and load that checkpoint again."""
    problem = Problem(id="p", source="bench", licence="MIT", prompt="p", verifier="none")
    prompts = [Prompt(problem, [5 + row, *range(6, 50)]) for row in range(config.prompts_per_step)]
    spent: list[float] = []

    def log(step: int, total: int, metrics: Mapping[str, float]) -> None:
        spent.append(metrics["seconds_rollout"] + metrics["seconds_update"])
        print(f"{name}: step {step} of {total}, {spent[-1]:.2f} s", file=sys.stderr, flush=True)

    short = {"steps": steps, "checkpoint_every_steps": steps - 1, "checkpoint_max_share": 1.0}
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:  # on the disk that runs are on
        place = Path(folder)
        grpo.train(
            model, tinyworld.tokenizer(), prompts, reward, config.model_copy(update=short), seed=0, checkpoints=place,
            log=log,
        )  # fmt: skip
        found = checkpoint.latest(place)
        assert found is not None
        saving, on_disk, loading, growth = [], [], [], []
        for repeat in range(REPEATS):
            before = _reset_peak_memory()
            started = time.perf_counter()
            checkpoint.save(place, steps + repeat, found.tensors, found.state)
            saving.append(time.perf_counter() - started)
            checkpoint.settle(place)
            on_disk.append(time.perf_counter() - started)
            growth.append(_peak_memory() - before)
            started = time.perf_counter()
            checkpoint.latest(place)
            loading.append(time.perf_counter() - started)
    step = statistics.median(spent)
    wait = statistics.median(saving)
    return {
        "model": name,
        "megabytes": round(sum(t.numel() * t.element_size() for t in found.tensors.values()) / 1e6, 1),
        "step_seconds": round(step, 3),
        "save_seconds": [round(value, 4) for value in (wait, min(saving), max(saving))],
        "on_disk_seconds": round(statistics.median(on_disk), 4),
        "load_seconds": round(statistics.median(loading), 4),
        "memory_growth_megabytes": round(statistics.median(growth) / 1e6, 1),
        "checkpoint_every_steps": config.checkpoint_every_steps,
        "share": round(wait / (wait + config.checkpoint_every_steps * step), 5),
    }


def _reset_peak_memory() -> int:
    """Memory in use now, from which the peak counts anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_memory()


def _peak_memory() -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def main() -> int:
    """Exit status 0 where saving takes less than a twentieth of the time."""
    rows = [measure("tiny", *tiny(), steps=6), measure("smollm2-135m", *smollm2(), steps=3)]
    within = all(row["share"] <= AT_MOST for row in rows)
    print(json.dumps({"benchmark": "checkpoint", "threads": torch.get_num_threads(), "at_most": AT_MOST,
                      "within": within, "rows": rows}))  # fmt: skip
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
