"""What a verifier says."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """A score, the reason in a few words, and the wall time it took."""

    score: float
    """1 is right, anything below is wrong (a gym scorer may give a fraction, or a small consolation)."""
    reason: str
    """Why, for people: `right`, `wrong`, `hedged`, `no verdict within 5 s`, …"""
    seconds: float
    """0 where reading the text was enough."""
