"""Reward models for preference RL: helpfulness from pairs, harmlessness from single responses."""

from pydantic import Field

from r1kit.schema import Section


class RewardModelConfig(Section):
    """One reward-model training (arXiv 2501.12948, supplementary B.3: 6e-6, batch 256, one epoch)."""

    learning_rate: float = Field(6e-6, gt=0)
    """Peak learning rate, decayed linearly."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the pairs."""
    max_steps: int | None = Field(None, gt=0)
    """Most optimizer steps."""
    batch_size: int = Field(256, gt=0)
    """Pairs (or responses) in a step."""
    max_length_tokens: int = Field(8192, gt=1)
    """Longer texts are cut at the left."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    checkpoint_every_steps: int = Field(50, gt=0)
    """Steps between checkpoints."""
