"""How a GRPO step grows: `make bench-growth` measures it against each size in turn, and draws docs/growth.svg.

Every point is the median step of r1kit alone: sampling to the limit, then one update. One size moves at a time; the
others stay at the middle of the picture. Prints a line a point, and last one JSON object with all of them.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import work
from benchmarks.duel import matmul_peak, say
from benchmarks.environment import ROOT
from benchmarks.ours import grpo
from r1kit import models, tinyworld
from r1kit.models import ScratchConfig

MIDDLE = {"width": 256, "samples": 8, "prompt": 64, "completion": 64}
SWEEPS: dict[str, tuple[int, ...]] = {
    "width": (64, 128, 256, 512, 768),
    "samples": (2, 4, 8, 16, 32),
    "prompt": (16, 64, 128, 256, 512),
    "completion": (8, 16, 32, 64, 128, 256),
}
LABELS = {
    "width": "parameters",
    "samples": "samples of a prompt",
    "prompt": "tokens of a prompt",
    "completion": "tokens of a completion",
}
PROMPTS, LAYERS = 4, 6


def measure(sizes: dict[str, int], folder: Path, rounds: int, peak: float) -> dict[str, Any]:
    """One point: seconds of sampling and of the update, and how long the necessary arithmetic alone would take."""
    width, samples = sizes["width"], sizes["samples"]
    shape = ScratchConfig(
        hidden_size=width, num_layers=LAYERS, num_heads=width // 32, intermediate_size=3 * width, max_length_tokens=1024
    )
    tokenizer = tinyworld.tokenizer()
    model = models.make_llama(shape, tokenizer, 0)
    models.save(model, tokenizer, folder)
    given = {
        "model": str(folder),
        "prompts": work.prompts_of(folder, PROMPTS, sizes["prompt"]),
        "config": {
            "prompts_per_step": PROMPTS,
            "samples_per_prompt": samples,
            "sampling": {"max_tokens": sizes["completion"]},
            "kl_coefficient": 0.0,
            "micro_batch_tokens": 4096,
        },
    }
    step = grpo(given)
    step({})
    parts = []
    for _ in range(rounds):
        started = time.perf_counter()
        told = step({})
        parts.append((time.perf_counter() - started, told["parts"]["sampling"], told["parts"]["update"]))
    whole, sampling, update = (statistics.median(values) for values in zip(*parts, strict=True))
    groups = [(sizes["prompt"], [sizes["completion"]] * samples)] * PROMPTS
    flops = work.grpo_passes(0.0) * work.forward_flops(folder, groups)
    parameters = model.num_parameters()
    point = {**sizes, "parameters": parameters, "seconds": whole, "sampling": sampling, "update": update}
    return point | {"necessary_seconds": flops / peak}


def draw(sweeps: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """One panel a size, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "r1kit"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    for panel, (name, points) in zip(panels.flat, sweeps.items(), strict=True):
        across = [point["parameters" if name == "width" else name] for point in points]
        for series, style in (("seconds", "o-"), ("sampling", "s--"), ("update", "^--"), ("necessary_seconds", ":")):
            label = {"seconds": "step", "necessary_seconds": "arithmetic at the matmul peak"}.get(series, series)
            panel.loglog(across, [point[series] for point in points], style, label=label, markersize=4)
        panel.set_xlabel(LABELS[name])
        panel.set_ylabel("seconds")
        panel.grid(visible=True, which="both", alpha=0.25)
    panels.flat[0].legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Exit status 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="steps of each point, after one that does not count")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "growth.svg")
    arguments = parser.parse_args()
    peak = matmul_peak(arguments.threads)
    sweeps: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder, mock.patch("r1kit.sampler.end_token_ids", return_value={-1}):
        for name, values in SWEEPS.items():
            for value in values:
                point = measure(MIDDLE | {name: value}, Path(folder), arguments.rounds, peak)
                sweeps.setdefault(name, []).append(point)
                say(f"{LABELS[name]}: {value}: {point['seconds']:.3f} s, arithmetic {point['necessary_seconds']:.3f} s")
    draw(sweeps, arguments.picture)
    machine = f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}"
    told = {"benchmark": "growth", "machine": machine, "matmul_flops_per_second": peak, "sweeps": sweeps}
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
