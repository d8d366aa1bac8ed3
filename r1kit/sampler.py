"""Sampling completions from a policy: prompts computed once a group, finished rows leave the batch."""

from pydantic import Field

from r1kit.schema import Section


class SamplingConfig(Section):
    """How completions are drawn."""

    temperature: float = Field(1.0, ge=0.0)
    """0 means greedy."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus: the smallest set of tokens with at least this probability."""
    max_tokens: int = Field(512, gt=0)
    """Most tokens of a completion, the end token included."""
