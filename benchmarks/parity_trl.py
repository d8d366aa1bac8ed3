"""TRL's side of the parity benchmark; runs in TRL's own environment, so it imports nothing of r1kit.

Reads the cases and model directories that parity.py wrote and answers each with what TRL's GRPOTrainer makes of it:
advantages, loss, gradient. Sampling is replaced by the completions of the case; everything behind it is TRL's own.
In a `tokens` case the model's log-probabilities are replaced by the case's too, and the gradient is with respect to
them; in a `model` case they are the model's, and the gradient is with respect to its weights.
"""

import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from datasets import Dataset  # pyright: ignore[reportMissingImports]  (TRL's environment has it)
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportMissingImports]  (likewise)

LOSSES = {"r1": "grpo", "gspo": "grpo"}
SCALES = {"std": "group", "mean": "none"}


def arguments(case: dict, folder: str) -> GRPOConfig:
    """The case's choices in TRL's words."""
    ours = case["config"]
    minibatches = ours["minibatches"]
    rows = len(case["lengths"])
    return GRPOConfig(
        output_dir=folder,
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=rows // minibatches,
        steps_per_generation=minibatches,
        # TRL computes the old log-probabilities only where it thinks that it needs them: with two epochs it does.
        num_iterations=2,
        num_generations=len(case["rewards"][0]),
        max_completion_length=ours["sampling"]["max_tokens"],
        temperature=ours["sampling"]["temperature"],
        loss_type=LOSSES.get(ours["loss"], ours["loss"]),
        importance_sampling_level="sequence" if ours["loss"] == "gspo" else "token",
        scale_rewards=SCALES[ours["advantage"]],
        epsilon=ours["clip_low"],
        epsilon_high=ours["clip_high"],
        delta=ours["clip_dual"],
        beta=ours["kl_coefficient"],
        use_bias_correction_kl=ours["kl_importance"],
        mask_truncated_completions=ours["overlong"] == "mask",
        vllm_importance_sampling_mode=f"{ours['sampler_correction'].replace('none', 'token')}_truncate",
        vllm_importance_sampling_clip_max=ours["sampler_correction_cap"],
        vllm_importance_sampling_clip_min=None,
    )


def make_trainer(case: dict, models: Path, folder: str) -> GRPOTrainer:
    """A trainer that holds the case's weights and samples the case's completions."""
    tokenizer = AutoTokenizer.from_pretrained(models / "policy")
    flat = [reward for group in case["rewards"] for reward in group]
    prompts, completions, sampled = (
        [row[name] for row in case["rows"]] for name in ("prompt", "completion", "sampled")
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(models / "old", dtype=torch.float32),
        reward_funcs=lambda completions, **_: flat[: len(completions)],
        args=arguments(case, folder),
        train_dataset=Dataset.from_list([{"prompt": "cat"}] * 4),
        processing_class=tokenizer,
    )
    texts = [""] * len(prompts)
    trainer._generate = lambda _: (prompts, completions, None, texts, sampled, {}, None, [])
    trainer.use_vllm = case["config"]["sampler_correction"] != "none"
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    if trainer.ref_model is not None:
        trainer.ref_model.load_state_dict(AutoModelForCausalLM.from_pretrained(models / "reference").state_dict())
    return trainer


def scored(trainer: GRPOTrainer, case: dict) -> dict:
    """What TRL makes of the completions; then the rows of the first of the optimizer steps."""
    rows = len(case["lengths"])
    batch = trainer._generate_and_score_completions([{"prompt": "cat"}] * rows)
    first = rows // case["config"]["minibatches"]
    return {name: value if value.ndim == 0 else value[:first] for name, value in batch.items()}


def answer_tokens(case: dict, models: Path, folder: str) -> dict:
    """Loss, and gradient with respect to the log-probabilities of the case."""
    trainer = make_trainer(case, models, folder)
    tables = {name: torch.tensor(case[name]) for name in ("logprobs", "old", "anchor")}

    def from_the_case(model: torch.nn.Module, *_, **__) -> tuple[torch.Tensor, None, None]:
        return tables["anchor" if model is trainer.ref_model else "old"], None, None

    trainer._get_per_token_logps_and_entropies = from_the_case
    batch = scored(trainer, case)
    leaf = tables["logprobs"].requires_grad_()
    rows = len(batch["advantages"])
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (leaf[:rows], torch.zeros(leaf[:rows].shape), None)
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    assert leaf.grad is not None
    return {"loss": float(loss), "advantages": batch["advantages"].tolist(), "gradient": leaf.grad.tolist()}


def answer_model(case: dict, models: Path, folder: str) -> dict:
    """Loss, and gradient with respect to the weights."""
    trainer = make_trainer(case, models, folder)
    batch = scored(trainer, case)
    trainer.model.load_state_dict(AutoModelForCausalLM.from_pretrained(models / "policy").state_dict())
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    gradient = {name: weight.grad.tolist() for name, weight in trainer.model.named_parameters()}
    return {"loss": float(loss), "advantages": batch["advantages"].tolist(), "gradient": gradient}


def main() -> None:
    """Answer every case of a folder."""
    warnings.filterwarnings("ignore")
    disable_progress_bar()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    work = Path(sys.argv[1])
    answers = {}
    for case in json.loads((work / "cases.json").read_text()):
        answer = {"tokens": answer_tokens, "model": answer_model}[case["kind"]]
        with tempfile.TemporaryDirectory() as folder:
            answers[case["name"]] = answer(case, work / "models", folder)
    (work / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
