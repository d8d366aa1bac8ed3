"""The rivals' side of the duels: TRL's trainers and transformers' `generate`, in TRL's environment, nothing of r1kit.

`python theirs.py KIND SETTINGS`. TRL's own training loop runs; a callback waits for the next line before each step.
"""

import json
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # pyright: ignore[reportMissingImports]  (TRL's environment has it)
from duel import play, report  # pyright: ignore[reportMissingImports]  (the script's own folder)
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    StoppingCriteriaList,
    TrainerCallback,
)
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]  (likewise)


class TurnAbout(TrainerCallback):
    """Waits before a step and reports after it."""

    def __init__(self) -> None:
        self.started = 0.0
        self.told: dict[str, Any] = {}

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Loaded."""
        print(json.dumps({"ready": True}), flush=True)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the next line."""
        if not sys.stdin.readline():
            sys.exit(0)
        self.started = time.perf_counter()
        self.told = {}

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Tell."""
        seconds = time.perf_counter() - self.started
        report(seconds, self.told)


def grpo(work: dict[str, Any], folder: str) -> None:
    """GRPOTrainer: on-policy, one optimizer step a rollout."""
    config = work["config"]
    samples, limit = config["samples_per_prompt"], config["sampling"]["max_tokens"]
    rows = samples * len(work["prompts"])
    batch = min(rows, work.get("rival_batch", rows))
    arguments = GRPOConfig(
        output_dir=folder, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no",
        logging_strategy="no", max_steps=1 << 20, learning_rate=1e-6, beta=config["kl_coefficient"],
        per_device_train_batch_size=batch, gradient_accumulation_steps=rows // batch,
        steps_per_generation=rows // batch, num_iterations=1, num_generations=samples, max_completion_length=limit,
        temperature=1.0, disable_tqdm=True, shuffle_dataset=False,
        generation_kwargs={"min_new_tokens": limit} if work.get("to_the_limit") else None,
    )  # fmt: skip
    turn = TurnAbout()
    tokenizer = AutoTokenizer.from_pretrained(work["model"])
    sizes = {text: len(tokenizer(text)["input_ids"]) for text in work["prompts"]}

    def reward(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        firsts = range(0, len(prompts), samples)
        turn.told = {"groups": [(sizes[prompts[n]], list(map(len, completion_ids[n : n + samples]))) for n in firsts]}
        return [float(place % 2) for place in range(len(completion_ids))]

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": text} for text in work["prompts"]] * 8),
        processing_class=tokenizer,
        callbacks=[turn],
    )
    trainer.train()


def sft(work: dict[str, Any], folder: str) -> None:
    """SFTTrainer with its packing and completion-only loss."""
    turn = TurnAbout()
    arguments = SFTConfig(
        output_dir=folder, report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False, save_strategy="no",
        logging_strategy="no", max_steps=1 << 20, learning_rate=1e-6, per_device_train_batch_size=1,
        gradient_accumulation_steps=work["packs"], packing=True, max_length=work["pack_tokens"],
        completion_only_loss=True, disable_tqdm=True, dataset_num_proc=1,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": p, "completion": c} for p, c in work["rows"]]),
        processing_class=AutoTokenizer.from_pretrained(work["model"]),
        callbacks=[turn],
    )
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> Any:
        turn.told["tokens"] = turn.told.get("tokens", 0) + int(inputs["input_ids"].numel())
        turn.told.setdefault("groups", []).extend(_rows_of(inputs))
        return step(model, inputs, *rest, **more)

    trainer.training_step = counted
    trainer.train()


def _rows_of(inputs: Mapping[str, torch.Tensor]) -> list[tuple[int, list[int]]]:
    """Tokens of the prompt and of the answer of each row that was packed into a batch."""
    starts = (inputs["position_ids"].flatten() == 0).nonzero().flatten().tolist()
    answers = (inputs["labels"].flatten() != -100).int()
    ends = [*starts[1:], len(answers)]
    totals = [(end - start, int(answers[start:end].sum())) for start, end in zip(starts, ends, strict=True)]
    return [(total - answer, [answer]) for total, answer in totals]


def sampling(work: dict[str, Any], _: str) -> None:
    """`generate` over all rows at once, each as long as r1kit's was in the same round."""
    model: Any = AutoModelForCausalLM.from_pretrained(work["model"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(work["model"], padding_side="left")
    model.generation_config.eos_token_id = None
    texts = [text for text in work["prompts"] for _ in range(work["samples"])]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    width = batch["input_ids"].shape[1]
    config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=work["max_tokens"], eos_token_id=None,
        pad_token_id=tokenizer.eos_token_id,
    )  # fmt: skip

    def step(told: Mapping[str, Any]) -> dict[str, Any]:
        ends = width + torch.tensor([length for _, answers in told["groups"] for length in answers])

        def ended(tokens: torch.Tensor, _: Any, **__: Any) -> torch.Tensor:
            return tokens.shape[1] >= ends

        with torch.no_grad():
            output = model.generate(**batch, generation_config=config, stopping_criteria=StoppingCriteriaList([ended]))
        assert output.shape[1] == int(ends.max())
        return {"tokens": told["tokens"], "groups": told["groups"]}

    play(step)


def main() -> None:
    """Load, then play."""
    warnings.filterwarnings("ignore")
    disable_progress_bar()
    logging.disable(logging.WARNING)
    kind, settings = sys.argv[1:]
    work = json.loads(Path(settings).read_text())
    torch.set_num_threads(work["threads"])
    with tempfile.TemporaryDirectory() as folder:
        {"grpo": grpo, "sampling": sampling, "sft": sft}[kind](work, folder)


if __name__ == "__main__":
    main()
