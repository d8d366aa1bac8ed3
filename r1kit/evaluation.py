"""Evaluation: pass@1 with its interval, cons@k, length, format and language rates."""

from pydantic import Field

from r1kit.sampler import SamplingConfig
from r1kit.schema import Section


class EvaluationConfig(Section):
    """How a model is examined. Temperature and top-p are the paper's (arXiv 2501.12948, section 3)."""

    samples_per_problem: int = Field(1, gt=0)
    """k: completions a problem; pass@1 is their mean."""
    sampling: SamplingConfig = SamplingConfig(temperature=0.6, top_p=0.95, max_tokens=32768)
    """How answers are drawn."""
    max_problems: int | None = Field(None, gt=0)
    """First so many problems of each benchmark."""
    batch_size: int = Field(64, gt=0)
    """Completions sampled together."""
