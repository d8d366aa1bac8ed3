"""r1kit's side of the duels: `python -m benchmarks.ours KIND SETTINGS`, where SETTINGS is a file of JSON."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.duel import play
from r1kit import memory, models, random
from r1kit.engine import Engine
from r1kit.grpo_config import GrpoConfig
from r1kit.rollout import Prompt, roll_out
from r1kit.rows import Problem
from r1kit.sampler import Completion, SamplingConfig, sample
from r1kit.sft import Example, SftConfig, _accumulate
from r1kit.update import update

Round = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def grpo(work: dict[str, Any]) -> Round:
    """A whole step: sample, score, update."""
    policy, tokenizer = models.load(Path(work["model"]))
    config = GrpoConfig.model_validate(work["config"])
    engine = Engine(policy, config)
    reference = engine.frozen_copy() if config.kl_coefficient > 0 else None
    problem = {"source": "bench", "licence": "MIT", "verifier": "gym"}
    prompts = [
        Prompt(Problem.model_validate({"id": str(n), "prompt": text, **problem}), tokenizer(text)["input_ids"])
        for n, text in enumerate(work["prompts"])
    ]
    steps = iter(range(1 << 30))

    def reward(_: Sequence[Problem], completions: Sequence[Completion]) -> list[dict[str, float]]:
        return [{"accuracy": float(place % 2)} for place in range(len(completions))]

    def step(_: Mapping[str, Any]) -> dict[str, Any]:
        number = next(steps)
        started = time.perf_counter()
        rollout = roll_out(policy, tokenizer, prompts, reward, config, seed=0, step=number)
        sampled = time.perf_counter()
        update(engine, reference, rollout, config, 1e-6, seed=0, step=number)
        ended = time.perf_counter()
        lengths = [len(completion.token_ids) for completion in rollout.completions]
        assert not work.get("to_the_limit") or set(lengths) == {config.sampling.max_tokens}
        samples = config.samples_per_prompt
        groups = [(len(prompt.token_ids), lengths[n * samples : (n + 1) * samples]) for n, prompt in enumerate(prompts)]
        return {"groups": groups, "parts": {"sampling": sampled - started, "update": ended - sampled}}

    return step


def sampling(work: dict[str, Any]) -> Round:
    """Completions for a batch of prompts; to the limit, or to where they end."""
    policy, tokenizer = models.load(Path(work["model"]))
    prompts = [tokenizer(text)["input_ids"] for text in work["prompts"]]
    config = SamplingConfig(max_tokens=work["max_tokens"])
    steps = iter(range(1 << 30))

    def step(_: Mapping[str, Any]) -> dict[str, Any]:
        sampled = sample(
            policy, tokenizer, prompts, work["samples"], config,
            seed=0, step=next(steps), prompt_keys=range(len(prompts)),
        )  # fmt: skip
        lengths = [[len(completion.token_ids) for completion in group] for group in sampled]
        assert not work.get("to_the_limit") or {n for group in lengths for n in group} == {config.max_tokens}
        groups = [(len(prompt), group) for prompt, group in zip(prompts, lengths, strict=True)]
        return {"tokens": sum(map(sum, lengths)), "groups": groups}

    return step


def sft(work: dict[str, Any]) -> Round:
    """One optimizer step over rows of mixed lengths."""
    model, tokenizer = models.load(Path(work["model"]))
    config = SftConfig.model_validate(work["config"])
    engine = Engine(model, config)
    (end,) = [token for token in [tokenizer.eos_token_id] if isinstance(token, int)]
    rows = [Example(tokenizer(p)["input_ids"], [*tokenizer(r)["input_ids"], end]) for p, r in work["rows"]]
    order = random.Order(len(rows), 0, "bench")
    steps = iter(range(1 << 30))
    model.train()

    def step(_: Mapping[str, Any]) -> dict[str, Any]:
        batch = [rows[place] for place in order.take(next(steps) * config.batch_size, config.batch_size)]
        _accumulate(engine, batch, config.micro_batch_tokens)
        engine.step(1e-6)
        groups = [(len(example.prompt), [len(example.response)]) for example in batch]
        return {"tokens": sum(example.num_tokens for example in batch), "groups": groups}

    return step


def main() -> None:
    """Load, then play."""
    kind, settings = sys.argv[1:]
    work = json.loads(Path(settings).read_text())
    torch.set_num_threads(work["threads"])
    memory.keep_freed()
    with mock.patch("r1kit.sampler.end_token_ids", return_value={-1}) if work.get("to_the_limit") else mock.MagicMock():
        play({"grpo": grpo, "sampling": sampling, "sft": sft}[kind](work))


if __name__ == "__main__":
    main()
