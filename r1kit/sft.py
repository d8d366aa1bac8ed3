"""Supervised fine-tuning: base training, cold start, the second SFT and distillation."""

from typing import Literal

from pydantic import Field

from r1kit.schema import Section


class SftConfig(Section):
    """One supervised training. The defaults are the paper's cold start (arXiv 2501.12948)."""

    learning_rate: float = Field(5e-5, gt=0)
    """Peak learning rate."""
    final_learning_rate_ratio: float = Field(0.1, ge=0, le=1)
    """Last learning rate as a share of the peak."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after the warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    epochs: float = Field(2.0, gt=0)
    """Passes over the data, unless `max_steps` ends it earlier."""
    max_steps: int | None = Field(None, gt=0)
    """Most optimizer steps."""
    batch_size: int = Field(128, gt=0)
    """Rows in an optimizer step, over all processes."""
    max_length_tokens: int = Field(32768, gt=1)
    """A longer row is dropped, and counted."""
    micro_batch_tokens: int = Field(16384, gt=0)
    """Most padded tokens in one forward pass."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW weight decay."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    """AdamW moment decays."""
    max_gradient_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    checkpoint_every_steps: int = Field(50, gt=0)
    """Steps between checkpoints."""
