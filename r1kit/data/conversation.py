"""A conversation as one prompt, since rows have a single one."""

from collections.abc import Sequence

_NAMES = {"user": "User", "assistant": "Assistant"}


def as_prompt(turns: Sequence[tuple[str, str]], system: str = "") -> str:
    """The turns up to the response, as text; a single turn stays as it is.

    Args:
        turns: (`user` or `assistant`, text), the last one the user's.
        system: what stands above them.
    """
    assert turns and turns[-1][0] == "user"
    if len(turns) == 1:
        text = turns[0][1].strip()
    else:
        text = "\n\n".join(f"{_NAMES[role]}: {said.strip()}" for role, said in turns)
    return f"{system.strip()}\n\n{text}" if system.strip() else text
