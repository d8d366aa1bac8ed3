"""Problems of reasoning-gym, judged by its own scorers. The problem's meta holds the data set's name and the entry."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

MAX_CHARACTERS = 20_000

# Their scorers hand the answer to Python's or sympy's eval, so it must be a harmless expression.
_EVALUATED = frozenset(
    {
        "countdown", "puzzle24", "simple_integration", "intermediate_integration", "polynomial_multiplication",
        "string_insertion", "spiral_matrix", "n_queens",
    }
)  # fmt: skip
_FUNCTIONS = frozenset(
    {"sin", "cos", "tan", "exp", "log", "ln", "sqrt", "asin", "acos", "atan", "sinh", "cosh", "tanh"}
)
_CALL = re.compile(r"([A-Za-z_]\w*|[^\W\d]\w*|[)\]'\"])\s*\(")
_ATTRIBUTE = re.compile(r"\.\s*[^\W\d]|__|\blambda\b|\bfor\b|:=")
_HUGE = re.compile(r"\*\*\s*[-+]?\s*[\w.]+\s*\*\*|\*\*[\s(+-]*[0-9]{4}|<<")


def load(payload: dict[str, Any]) -> None:
    """Build the scorer, once, in the process that workers are forked from."""
    _scorer(payload["dataset"])


def judge(payload: dict[str, Any]) -> tuple[float, str]:
    """The scorer's verdict; only 1.0 is right."""
    name, answer = payload["dataset"], payload["answer"]
    if name in _EVALUATED and not harmless(answer):
        return 0.0, "calls, attributes or huge powers in an answer that is evaluated"
    score = float(_scorer(name)(answer, payload["entry"]))
    return (1.0, "right") if score >= 1.0 else (max(score, 0.0), "wrong")


def harmless(answer: str) -> bool:
    """Whether evaluating an answer calls nothing but elementary functions, and makes no huge number."""
    calls = {match.group(1) for match in _CALL.finditer(answer)}
    return calls <= _FUNCTIONS and not _ATTRIBUTE.search(answer) and not _HUGE.search(answer)


@cache
def _scorer(name: str) -> Callable[[str, dict[str, Any]], float]:
    import reasoning_gym  # takes two seconds; only workers need it

    return reasoning_gym.get_score_answer_fn(name)  # pyright: ignore[reportReturnType]  (its annotation is wrong)
