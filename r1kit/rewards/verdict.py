"""What a verifier says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """A score, why, and how long it took."""

    score: float
    reason: str
    seconds: float
