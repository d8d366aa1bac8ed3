"""The format reward (arXiv 2501.12948, section 2.2.2)."""

from r1kit.chat import parse


def format_reward(completion: str, opens_think: bool = False) -> float:
    """1 for exactly one chain and then exactly one answer, neither empty, and nothing else; otherwise 0.

    Args:
        completion: what the model wrote.
        opens_think: the chat template already wrote `<think>`; the completion must then not repeat it.
    """
    return float(parse(completion, opens_think).well_formed)
