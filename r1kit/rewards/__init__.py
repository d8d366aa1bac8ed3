"""Rules that score a completion, and the workers that run them."""

from r1kit.rewards.pool import VerifierPool, check_gold, gold_response
from r1kit.rewards.text import format_reward, language_share, readable, repetition_share
from r1kit.rewards.verdict import Verdict

__all__ = [
    "Verdict", "VerifierPool", "check_gold", "format_reward", "gold_response", "language_share", "readable",
    "repetition_share",
]  # fmt: skip
