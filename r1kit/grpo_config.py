"""Settings of a GRPO training, and which of them contradict one another."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from r1kit.guard import GuardConfig
from r1kit.loss import AdvantageName, KlName, LossName
from r1kit.resume import CheckpointConfig
from r1kit.sampler import SamplingConfig
from r1kit.schema import CONDUCT, Section
from r1kit.watch import WatchConfig


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


class GrpoConfig(CheckpointConfig):
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
    guard: GuardConfig = GuardConfig()
    """The alarm of those steps; where held-out prompts are given, as stage `prefer` gives them."""
    overlong: Literal["keep", "mask", "soft_penalty"] = "keep"
    """Completions cut at the limit: keep them, take them out of the loss, or lower the reward as it comes near."""
    overlong_buffer_tokens: int = Field(default=0, ge=0)
    """For `soft_penalty`: over so many tokens before the limit the penalty grows from 0 to its full size."""
    overlong_penalty: float = Field(default=1.0, gt=0)
    """For `soft_penalty`: what a completion at the limit loses."""
    micro_batch_tokens: int = Field(default=16384, gt=0)
    """Most tokens in one training pass; the prompt of a group counts once."""
    sampling_batch_size: int = Field(default=256, gt=0)
    """Completions sampled together."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW weight decay."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    """AdamW moment decays."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    checkpoint_every_steps: Annotated[int, CONDUCT] = Field(default=10, gt=0)
    """Steps between checkpoints."""
    watch: Annotated[WatchConfig, CONDUCT] = WatchConfig()
    """When the training stops because it is dead."""

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
