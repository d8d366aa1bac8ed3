"""Rejection sampling: many samples a prompt, kept only if correct, readable and in one language."""

from pydantic import Field

from r1kit.sampler import SamplingConfig
from r1kit.schema import Section


class RejectionConfig(Section):
    """How the curated set is drawn from Dev2."""

    prompts: int = Field(100_000, gt=0)
    """Problems to sample for."""
    samples_per_prompt: int = Field(16, gt=0)
    """Completions a problem."""
    keep_per_prompt: int = Field(4, gt=0)
    """Most kept a problem."""
    sampling: SamplingConfig = SamplingConfig(temperature=1.0, max_tokens=32768)
    """How they are drawn."""
    batch_size: int = Field(256, gt=0)
    """Completions sampled together."""
