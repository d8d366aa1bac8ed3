"""Group relative policy optimisation: R1-Zero, reasoning RL and preference RL."""

from typing import Literal

from pydantic import Field

from r1kit.sampler import SamplingConfig
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

    steps: int = Field(10400, gt=0)
    """Rollout steps."""
    prompts_per_step: int = Field(32, gt=0)
    """Questions in a rollout."""
    samples_per_prompt: int = Field(16, gt=1)
    """Completions a question: the group."""
    sampling: SamplingConfig = SamplingConfig(temperature=1.0, top_p=1.0, max_tokens=32768)
    """How the group is drawn."""
    learning_rate: float = Field(3e-6, gt=0)
    """Constant after the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    minibatches: int = Field(1, gt=0)
    """Optimizer steps a rollout is split into (16 in the paper), one epoch over it."""
    loss: Literal["r1", "grpo", "dr_grpo", "dapo", "bnpo"] = "r1"
    """How token losses are aggregated."""
    advantage: Literal["std", "mean"] = "std"
    """Divide the centred reward by the group's standard deviation, or only centre it."""
    advantage_epsilon: float = Field(1e-4, ge=0)
    """Added to the standard deviation (Bessel-corrected)."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    """Lower clip of the ratio: 1 - clip_low."""
    clip_high: float = Field(10.0, gt=0)
    """Upper clip of the ratio: 1 + clip_high (the paper's epsilon is 10)."""
    kl_coefficient: float = Field(0.001, ge=0)
    """Beta of the k3 estimate against the reference."""
    reference_refresh_steps: int = Field(400, ge=0)
    """Every so many steps the reference becomes the policy; 0 means never."""
    rewards: RewardWeights = RewardWeights()
    """Weights of the components."""
    preference_last_steps: int = Field(0, ge=0)
    """General prompts and preference rewards only in the last so many steps (400 in the paper)."""
    general_share: float = Field(0.5, ge=0, le=1)
    """Share of general prompts in those steps."""
    overlong: Literal["keep", "mask"] = "keep"
    """Completions cut at the limit: keep them, or take them out of the loss."""
    micro_batch_tokens: int = Field(16384, gt=0)
    """Most padded completion tokens in one training pass."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW weight decay."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    """AdamW moment decays."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    checkpoint_every_steps: int = Field(10, gt=0)
    """Steps between checkpoints."""
    max_bad_steps: int = Field(3, gt=0)
    """Non-finite steps in a row after which the run stops."""
