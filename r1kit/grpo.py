"""Group relative policy optimisation: R1-Zero, reasoning RL and preference RL."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1kit import checkpoint, random
from r1kit.engine import Engine, Log, learning_rate, micro_batches, response_logprobs
from r1kit.loss import (
    KL_ESTIMATORS,
    AdvantageName,
    KlName,
    LossName,
    binding_clips,
    clipped_objective,
    denominator,
    group_advantages,
    outside_clip,
    sequence_log_ratio,
    soft_length_penalty,
    truncated_weights,
)
from r1kit.rows import Problem
from r1kit.sampler import Completion, SamplingConfig, sample
from r1kit.schema import Section


class RewardWeights(Section):
    """Weight of each reward component in the sum."""

    accuracy: float = 1.0
    """1 for a verified answer."""
    format: float = 1.0
    """1 for one think block followed by one answer block."""
    language: float = 0.0
    """Share of the chain in the prompt's language."""
    preference: float = 0.0
    """The reward model's score, for general prompts."""


class GrpoConfig(Section):
    """One GRPO training. The defaults are preset `r1` (arXiv 2501.12948, section 2.2; arXiv 2402.03300)."""

    steps: int = Field(default=10400, gt=0)
    """Rollout steps."""
    prompts_per_step: int = Field(default=32, gt=0)
    """Questions in a rollout."""
    samples_per_prompt: int = Field(default=16, gt=1)
    """Completions a question: the group."""
    sampling: SamplingConfig = SamplingConfig(temperature=1.0, top_p=1.0, max_tokens=32768)
    """How the group is drawn."""
    learning_rate: float = Field(default=3e-6, gt=0)
    """Constant after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    minibatches: int = Field(default=1, gt=0)
    """Optimizer steps a rollout is split into (16 in the paper), one epoch over it."""
    loss: LossName = "r1"
    """How token losses are aggregated; `gspo` also takes the ratio of whole sequences, whose clip is usually some
    1e-4 wide. `dr_grpo` in its paper goes with `advantage: mean`."""
    advantage: AdvantageName = "std"
    """Divide the centred reward by the group's standard deviation, only centre it, or compare with the others alone."""
    advantage_epsilon: float = Field(default=1e-4, ge=0)
    """Added to the standard deviation."""
    advantage_ddof: Literal[0, 1] = 1
    """Degrees of freedom taken off in the standard deviation: 1 Bessel-corrected, 0 the population's."""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """Lower clip of the ratio: 1 - clip_low."""
    clip_high: float = Field(default=10.0, gt=0)
    """Upper clip of the ratio: 1 + clip_high (the paper's epsilon is 10)."""
    clip_dual: float | None = Field(default=None, gt=1)
    """Bound of the ratio where the advantage is negative (verl: 3); None means there is none."""
    kl_coefficient: float = Field(default=0.001, ge=0)
    """Beta of the KL estimate against the reference."""
    kl_estimator: KlName = "k3"
    """Schulman's estimate of the KL that enters the loss and the metrics."""
    kl_rows: Literal["with_advantage", "with_variance"] = "with_advantage"
    """Rows that the KL pulls: those with an advantage, the only ones computed; or also those that lie at the mean of a
    group with variance, like TRL's. Groups without variance are never pulled."""
    kl_importance: bool = False
    """Multiply the estimate by the ratio, which makes the gradient of k1 and k3 the KL's (arXiv 2512.02556)."""
    sampler_correction: Literal["none", "token", "sequence"] = "none"
    """Weigh tokens by trainer's over sampler's probability, token by token or of the whole completion."""
    sampler_correction_cap: float = Field(default=2.0, ge=1)
    """Largest such weight."""
    reference_refresh_steps: int = Field(default=400, ge=0)
    """Every so many steps the reference becomes the policy; 0 means never."""
    rewards: RewardWeights = RewardWeights()
    """Weights of the components."""
    preference_last_steps: int = Field(default=0, ge=0)
    """General prompts and preference rewards only in the last so many steps (400 in the paper)."""
    general_share: float = Field(default=0.5, ge=0, le=1)
    """Share of general prompts in those steps."""
    overlong: Literal["keep", "mask", "soft_penalty"] = "keep"
    """Completions cut at the limit: keep them, take them out of the loss, or lower the reward as it comes near."""
    overlong_buffer_tokens: int = Field(default=0, ge=0)
    """For `soft_penalty`: over so many tokens before the limit the penalty grows from 0 to its full size."""
    overlong_penalty: float = Field(default=1.0, gt=0)
    """For `soft_penalty`: what a completion at the limit loses."""
    micro_batch_tokens: int = Field(default=16384, gt=0)
    """Most padded tokens in one training pass."""
    sampling_batch_size: int = Field(default=256, gt=0)
    """Completions sampled together."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    """AdamW moment decays."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    checkpoint_every_steps: int = Field(default=10, gt=0)
    """Steps between checkpoints."""
    max_bad_steps: int = Field(default=3, gt=0)
    """Non-finite steps in a row after which the run stops."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        """Refuse choices that contradict one another."""
        if complaint := _contradiction(self):
            raise ValueError(complaint)
        return self


def _contradiction(config: GrpoConfig) -> str:
    """The first pair of choices that cannot be meant, beginning with the field; empty where there is none."""
    rows = config.prompts_per_step * config.samples_per_prompt
    limit, buffer = config.sampling.max_tokens, config.overlong_buffer_tokens
    if config.sampling.temperature == 0:
        return "sampling.temperature is 0, but a group drawn greedily has no variance to learn from: set it above 0"
    if config.sampling.top_p < 1:
        return (
            f"sampling.top_p is {config.sampling.top_p}, but the log-probabilities that are trained are those of the "
            "whole distribution, not of the nucleus drawn from: set it to 1"
        )
    if config.minibatches > rows:
        return f"minibatches is {config.minibatches}, but a step has only {rows} completions: lower it"
    if config.kl_estimator == "k1" and config.kl_coefficient > 0 and not config.kl_importance:
        return (
            "kl_estimator is k1, whose gradient is zero on average, so it would only add noise: "
            "set kl_importance to true, or take k2 or k3"
        )
    if config.overlong == "soft_penalty" and not 0 < buffer < limit:
        return (
            f"overlong_buffer_tokens is {buffer}, but overlong soft_penalty needs it between 1 and "
            f"sampling.max_tokens - 1, {limit - 1}"
        )
    if config.overlong != "soft_penalty" and buffer:
        return f"overlong_buffer_tokens is {buffer}, but overlong is {config.overlong}: set overlong to soft_penalty"
    return ""


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


def train(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    reward: Reward,
    config: GrpoConfig,
    *,
    seed: int,
    checkpoints: Path,
    log: Log,
    general_prompts: Sequence[Prompt] = (),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Improve the policy, in place: roll out, verify, compare within groups, update.

    Killed at any instant and called again with the same arguments, it ends in the same bits (same machine and
    thread count): the state is weights, optimizer, reference and step; all else is a function of the step.

    Args:
        prompts: verifiable problems; each step takes the next `prompts_per_step` of a shuffled endless order.
        reward: verifies and scores completions.
        checkpoints: folder that survives kills.
        general_prompts: prompts judged by reward models, mixed in during the last `preference_last_steps`.

    Returns:
        Metrics of the first and the last steps.

    Raises:
        ValueError: after `max_bad_steps` non-finite steps in a row.
    """
    engine = Engine(policy, config)
    reference = copy.deepcopy(policy).eval().requires_grad_(False) if config.kl_coefficient > 0 else None
    history: list[dict[str, float]] = []
    done = bad_steps = 0
    if saved := checkpoint.latest(checkpoints, say):
        engine.load(saved.tensors)
        _load_reference(reference, saved.tensors)
        done, bad_steps, history = saved.step, saved.state["bad_steps"], saved.state["history"]
        say(f"goes on after step {done} of {config.steps}")
    reasoning = random.Order(len(prompts), seed, "prompts")
    general = random.Order(len(general_prompts), seed, "general") if general_prompts else None
    for step in range(done, config.steps):
        if (
            reference is not None
            and step
            and config.reference_refresh_steps
            and step % config.reference_refresh_steps == 0
        ):
            reference.load_state_dict(policy.state_dict())
        chosen = _choose(step, config, prompts, reasoning, general_prompts, general)
        started = time.perf_counter()
        rollout = roll_out(policy, tokenizer, chosen, reward, config, seed=seed, step=step)
        sampled = time.perf_counter()
        rate = learning_rate(step, config.steps, config.learning_rate, config.warmup_steps)
        metrics = update(engine, reference, rollout, config, rate, seed=seed, step=step)
        metrics |= describe(rollout, config)
        metrics |= {"seconds_rollout": sampled - started, "seconds_update": time.perf_counter() - sampled}
        bad_steps = 0 if math.isfinite(metrics["gradient_norm"]) else bad_steps + 1
        if bad_steps >= config.max_bad_steps:
            raise ValueError(f"{bad_steps} steps in a row were not finite, the last is {step + 1}: lower learning_rate")
        log(step + 1, config.steps, metrics)
        history.append(metrics)
        if (step + 1) % config.checkpoint_every_steps == 0 and step + 1 < config.steps:
            tensors = engine.tensors() | _reference_tensors(reference)
            checkpoint.save(checkpoints, step + 1, tensors, {"bad_steps": bad_steps, "history": history})
    policy.eval()
    return _summary(history)


def _choose(
    step: int,
    config: GrpoConfig,
    prompts: Sequence[Prompt],
    reasoning: random.Order,
    general_prompts: Sequence[Prompt],
    general: random.Order | None,
) -> list[Prompt]:
    """Prompts of a step; general ones only in the last steps (arXiv 2501.12948, supplementary B.3.2)."""
    first_general = config.steps - config.preference_last_steps
    num_general = 0
    if general is not None and step >= first_general:
        num_general = round(config.prompts_per_step * config.general_share)
    chosen = [prompts[i] for i in reasoning.take(step * config.prompts_per_step, config.prompts_per_step - num_general)]
    if general is not None and num_general:
        start = (step - first_general) * num_general
        chosen += [general_prompts[i] for i in general.take(start, num_general)]
    return chosen


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
    """Sample a group for each prompt and score it."""
    groups = sample(
        policy,
        tokenizer,
        [prompt.token_ids for prompt in prompts],
        config.samples_per_prompt,
        config.sampling,
        seed=seed,
        step=step,
        prompt_keys=[random.derive_seed(prompt.problem.id) for prompt in prompts],
        batch_size=config.sampling_batch_size,
    )
    completions = [completion for group in groups for completion in group]
    problems = [prompt.problem for prompt in prompts for _ in range(config.samples_per_prompt)]
    components = reward(problems, completions)
    weights = config.rewards.model_dump()
    total = [sum(weights[name] * value for name, value in row.items()) for row in components]
    rewards = torch.tensor(total, dtype=torch.float64)
    if config.overlong == "soft_penalty":
        rewards = rewards + _length_rewards(completions, config)
    return Rollout(prompts, completions, components, rewards.view(len(prompts), -1))


def _length_rewards(completions: Sequence[Completion], config: GrpoConfig) -> Tensor:
    """[R] what each completion loses by its length."""
    lengths = torch.tensor([len(completion.token_ids) for completion in completions])
    penalty = soft_length_penalty(lengths, config.sampling.max_tokens, config.overlong_buffer_tokens)
    return config.overlong_penalty * penalty


def update(
    engine: Engine,
    reference: PreTrainedModel | None,
    rollout: Rollout,
    config: GrpoConfig,
    rate: float,
    *,
    seed: int,
    step: int,
) -> dict[str, float]:
    """One epoch over a rollout, in `minibatches` optimizer steps.

    Rows that nothing acts on are not computed: a group without variance changes nothing, not even through KL.

    Returns:
        Gradient norm, and over the tokens that were trained on: KL, entropy, the share outside the clip range, the
        shares whose gradient the lower and the upper bound take away, and the mean distance between the
        log-probabilities of the trainer and of the sampler.
    """
    advantages = group_advantages(rollout.rewards, config.advantage, config.advantage_epsilon, config.advantage_ddof)
    advantages = advantages.flatten().float()
    rows = random.generator(seed, step, "minibatches").permutation(len(rollout.completions))
    sums: dict[str, float] = dict.fromkeys(_METRICS, 0.0)
    norm = 0.0
    on_policy = config.minibatches == 1
    behaviour = None if on_policy else _behaviour(engine.model, rollout, config)
    engine.model.train()
    for part in range(config.minibatches):
        minibatch = [int(row) for row in rows[part :: config.minibatches]]
        _accumulate(engine.model, reference, rollout, minibatch, advantages, behaviour, config, sums)
        norm = engine.step(rate)
        if not math.isfinite(norm):
            break
    tokens = max(1.0, sums.pop("tokens"))
    return {"gradient_norm": norm, "learning_rate": rate} | {name: value / tokens for name, value in sums.items()}


_METRICS: tuple[str, ...] = (
    "kl",
    "entropy",
    "clipped_share",
    "clipped_low_share",
    "clipped_high_share",
    "sampler_gap",
    "tokens",
)


def token_losses(
    config: GrpoConfig,
    logprobs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    old: Tensor,
    sampled: Tensor | None = None,
    anchor: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each token's loss before aggregation: clipped surrogate, times the sampler's weight, plus beta times KL.

    Args:
        logprobs: [R, T] of the policy, with gradient.
        mask: [R, T] 1 for tokens that count.
        advantages: [R].
        old: [R, T] log-probabilities of the weights that sampled, as the trainer computes them.
        sampled: [R, T] log-probabilities recorded as sampled; needed for `sampler_correction`.
        anchor: [R, T] of the reference; None leaves the KL out.

    Returns:
        (loss [R, T], log-ratio [R, T] or [R, 1] without gradient, KL estimate [R, T] without gradient)
    """
    log_ratio = logprobs - old
    if config.loss == "gspo":
        log_ratio = sequence_log_ratio(log_ratio, mask)
    loss = clipped_objective(log_ratio, advantages, config.clip_low, config.clip_high, config.clip_dual)
    if config.sampler_correction != "none":
        assert sampled is not None, "the sampler records the log-probability of every token"
        loss = loss * truncated_weights(old, sampled, mask, config.sampler_correction_cap, config.sampler_correction)
    divergence = torch.zeros_like(logprobs)
    if anchor is not None:
        divergence = KL_ESTIMATORS[config.kl_estimator](anchor, logprobs)
        if config.kl_importance:
            divergence = divergence * log_ratio.exp()
        loss = loss + config.kl_coefficient * divergence
    return loss.expand_as(logprobs), log_ratio.detach(), divergence.detach()


def _divisors(rollout: Rollout, rows: Sequence[int], config: GrpoConfig) -> dict[int, Tensor]:
    """[1] what the token losses of each row of an optimizer step are divided by; rows left out have none."""
    if config.overlong == "mask":
        rows = [row for row in rows if rollout.completions[row].finished]
    if not rows:
        return {}
    lengths = torch.tensor([len(rollout.completions[row].token_ids) for row in rows])
    counted = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    step_tokens = None
    if config.minibatches > 1:
        kept = [c for c in rollout.completions if config.overlong != "mask" or c.finished]
        step_tokens = sum(len(c.token_ids) for c in kept) / config.minibatches
    return dict(zip(rows, denominator(config.loss, counted, config.sampling.max_tokens, step_tokens), strict=True))


def _accumulate(
    model: torch.nn.Module,
    reference: PreTrainedModel | None,
    rollout: Rollout,
    rows: Sequence[int],
    advantages: Tensor,
    behaviour: Mapping[int, Tensor] | None,
    config: GrpoConfig,
    sums: dict[str, float],
) -> float:
    """Gather the gradient of one minibatch, in micro-batches whose split does not change it.

    Returns:
        The loss.
    """
    divisors = _divisors(rollout, rows, config)
    acting = advantages != 0
    if reference is not None and config.kl_rows == "with_variance":
        size = rollout.rewards.shape[1]
        acting = acting.view(-1, size).any(1).repeat_interleave(size)
    live = [row for row in divisors if acting[row]]
    sizes = [len(rollout.prompt_of(row)) + len(rollout.completions[row].token_ids) for row in live]
    total = 0.0
    for batch in micro_batches(sizes, config.micro_batch_tokens):
        chosen = [live[place] for place in batch]
        prompts = [rollout.prompt_of(row) for row in chosen]
        responses = [rollout.completions[row].token_ids for row in chosen]
        logprobs, mask, entropy = response_logprobs(
            model, prompts, responses, config.sampling.temperature, with_entropy=True
        )
        old = logprobs.detach() if behaviour is None else _padded([behaviour[row] for row in chosen], logprobs)
        sampled = _sampled([rollout.completions[row] for row in chosen], logprobs)
        anchor = None
        if reference is not None:
            with torch.no_grad():
                anchor, _, _ = response_logprobs(reference, prompts, responses, config.sampling.temperature)
        gains = advantages[chosen].to(logprobs.device)
        losses, log_ratio, divergence = token_losses(
            config, logprobs, mask, gains, old=old, sampled=sampled, anchor=anchor
        )
        divisor = torch.stack([divisors[row] for row in chosen]).to(logprobs.device)
        loss = (losses * mask / divisor).sum()
        loss.backward()
        total += float(loss.detach())
        low, high = binding_clips(log_ratio, gains, config.clip_low, config.clip_high, config.clip_dual)
        observed = {
            "kl": divergence,
            "clipped_share": outside_clip(log_ratio, config.clip_low, config.clip_high),
            "clipped_low_share": low,
            "clipped_high_share": high,
            "sampler_gap": torch.zeros_like(old) if sampled is None else (old - sampled).abs(),
        }
        for name, value in observed.items():
            sums[name] += float((value * mask).sum())
        sums["entropy"] += float(entropy.sum()) if entropy is not None else 0.0
        sums["tokens"] += float(mask.sum())
    return total


def _sampled(completions: Sequence[Completion], like: Tensor) -> Tensor | None:
    """[R, T] log-probabilities as sampled; None where a completion came without them."""
    if any(len(completion.logprobs) != len(completion.token_ids) for completion in completions):
        return None
    return _padded([torch.tensor(completion.logprobs) for completion in completions], like)


@torch.no_grad()
def _behaviour(model: torch.nn.Module, rollout: Rollout, config: GrpoConfig) -> dict[int, Tensor]:
    """Log-probabilities of every row under the policy that sampled it, before the first optimizer step."""
    result: dict[int, Tensor] = {}
    sizes = [len(rollout.prompt_of(r)) + len(c.token_ids) for r, c in enumerate(rollout.completions)]
    for batch in micro_batches(sizes, config.micro_batch_tokens):
        responses = [rollout.completions[row].token_ids for row in batch]
        prompts = [rollout.prompt_of(row) for row in batch]
        logprobs, _, _ = response_logprobs(model, prompts, responses, config.sampling.temperature)
        for place, row in enumerate(batch):
            result[row] = logprobs[place, : len(responses[place])]
    return result


def _padded(rows: Sequence[Tensor], like: Tensor) -> Tensor:
    result = torch.zeros_like(like)
    for place, row in enumerate(rows):
        result[place, : len(row)] = row
    return result


def describe(rollout: Rollout, config: GrpoConfig) -> dict[str, float]:
    """What a rollout shows: mean reward and components, length, truncation, groups without variance."""
    lengths = [len(completion.token_ids) for completion in rollout.completions]
    spread = rollout.rewards.amax(1) - rollout.rewards.amin(1)
    metrics = {
        "reward": float(rollout.rewards.mean()),
        "response_tokens": sum(lengths) / len(lengths),
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


def _summary(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the first and the last tenth of the steps, and the number of steps."""
    window = max(1, len(history) // 10)
    result: dict[str, float] = {"steps": float(len(history))}
    for label, part in (("first", history[:window]), ("last", history[-window:])):
        for name in ("reward", "reward_accuracy", "reward_format", "reward_language", "reward_preference",
                     "response_tokens", "kl"):  # fmt: skip
            values = [metrics[name] for metrics in part if name in metrics]
            if values:
                result[f"{label}_{name}"] = sum(values) / len(values)
    return result


def _reference_tensors(reference: PreTrainedModel | None) -> dict[str, Tensor]:
    if reference is None:
        return {}
    return {f"reference.{name}": parameter for name, parameter in reference.named_parameters()}


@torch.no_grad()
def _load_reference(reference: PreTrainedModel | None, tensors: Mapping[str, Any]) -> None:
    if reference is not None:
        for name, parameter in reference.named_parameters():
            parameter.copy_(tensors[f"reference.{name}"])
