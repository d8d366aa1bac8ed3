"""Rules that score a completion, and the worker processes that run what must not be trusted."""

from r1kit.rewards.format import format_reward
from r1kit.rewards.gold import SURVIVES, check_gold, gold_response
from r1kit.rewards.language import language_share
from r1kit.rewards.pool import VerifierPool
from r1kit.rewards.readable import readable
from r1kit.rewards.repetition import repetition_share
from r1kit.rewards.verdict import Verdict

__all__ = [
    "SURVIVES", "Verdict", "VerifierPool", "check_gold", "format_reward", "gold_response", "language_share", "readable",
    "repetition_share",
]  # fmt: skip
