"""One step's groups of completions: sampled, scored, described."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1kit import parallel, random
from r1kit.grpo_config import GrpoConfig
from r1kit.loss import soft_length_penalty
from r1kit.rows import Problem
from r1kit.sampler import Completion, sample


@dataclass(frozen=True)
class Prompt:
    """A problem and the tokens that put it to the policy."""

    problem: Problem
    token_ids: Sequence[int]


Reward = Callable[[Sequence[Problem], Sequence[Completion]], Sequence[Mapping[str, float]]]
"""Components of each completion's reward, by the names of `RewardWeights`; an absent one counts 0."""


@dataclass(frozen=True)
class Rollout:
    """One step's groups, flattened: row r answers prompts[r // samples]."""

    prompts: Sequence[Prompt]
    completions: Sequence[Completion]
    components: Sequence[Mapping[str, float]]
    rewards: Tensor  # [G, S]

    def prompt_of(self, row: int) -> Sequence[int]:
        """Token ids of the prompt that row answers."""
        return self.prompts[row // self.rewards.shape[1]].token_ids


def roll_out(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    reward: Reward,
    config: GrpoConfig,
    *,
    seed: int,
    step: int,
) -> Rollout:
    """Sample a group for each prompt and score it. Of several processes each does its share, and all get all."""
    completions, components = answer(
        policy, tokenizer, prompts, reward, config, config.samples_per_prompt, seed=seed, step=step
    )
    weights = config.rewards.model_dump()
    total = [sum(weights[name] * value for name, value in row.items()) for row in components]
    rewards = torch.tensor(total, dtype=torch.float64)
    if config.overlong == "soft_penalty":
        rewards = rewards + _length_rewards(completions, config)
    return Rollout(prompts, completions, components, rewards.view(len(prompts), -1))


def answer(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    reward: Reward,
    config: GrpoConfig,
    num_samples: int,
    *,
    seed: int,
    step: int = 0,
) -> tuple[list[Completion], list[Mapping[str, float]]]:
    """`num_samples` completions of each prompt, one prompt after the other, and the components of their rewards."""
    own = parallel.mine(prompts)
    groups = sample(
        policy,
        tokenizer,
        [prompt.token_ids for prompt in own],
        num_samples,
        config.sampling,
        seed=seed,
        step=step,
        prompt_keys=[random.derive_seed(prompt.problem.id) for prompt in own],
        batch_size=config.sampling_batch_size,
    )
    completions = [completion for group in groups for completion in group]
    problems = [prompt.problem for prompt in own for _ in range(num_samples)]
    components = list(reward(problems, completions)) if problems else []
    if parallel.world_size() > 1:
        starts = range(0, len(completions), num_samples)
        ends = [at + num_samples for at in starts]
        scored = parallel.collect([(completions[a:b], components[a:b]) for a, b in zip(starts, ends, strict=True)])
        completions = [completion for group, _ in scored for completion in group]
        components = [row for _, rows in scored for row in rows]
    return completions, components


def _length_rewards(completions: Sequence[Completion], config: GrpoConfig) -> Tensor:
    """[R] what each completion loses by its length."""
    lengths = torch.tensor([len(completion.token_ids) for completion in completions])
    penalty = soft_length_penalty(lengths, config.sampling.max_tokens, config.overlong_buffer_tokens)
    return config.overlong_penalty * penalty


def describe(rollout: Rollout, config: GrpoConfig) -> dict[str, float]:
    """What a rollout shows: mean reward and components, length, truncation, groups without variance, and the mean
    log-probability of a sampled token (nats)."""
    lengths = [len(completion.token_ids) for completion in rollout.completions]
    spread = rollout.rewards.amax(1) - rollout.rewards.amin(1)
    metrics = {
        "reward": float(rollout.rewards.mean()),
        "response_tokens": sum(lengths) / len(lengths),
        "sampled_logprob": sum(sum(completion.logprobs) for completion in rollout.completions) / sum(lengths),
        "truncated_share": sum(not c.finished for c in rollout.completions) / len(lengths),
        "zero_variance_share": float((spread == 0).double().mean()),
    }
    if config.overlong == "soft_penalty":
        metrics["reward_length"] = float(_length_rewards(rollout.completions, config).mean())
    for name in config.rewards.model_dump():
        values = [row[name] for row in rollout.components if name in row]
        if values:
            metrics[f"reward_{name}"] = sum(values) / len(values)
    return metrics
