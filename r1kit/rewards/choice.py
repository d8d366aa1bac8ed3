"""Multiple choice and other short labels: A, (B), Yes, True. Linear in the answer's length, so judged in place."""

import re

from r1kit.rewards.hedging import hedged

MAX_CHARACTERS = 200

_WRAPPER = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_LEAD = re.compile(
    r"^(?:so |thus,? |therefore,? )?(?:(?:the )?(?:final |correct |right )?(?:answer|option|choice))(?: is)?:? ?"
)
_LETTER = re.compile(r"\(?([a-z])\)?")
_ANOTHER = re.compile(r"(?<![a-z.])\(?[a-z](?:\)|[.:](?!\S))|^\s*[a-z]$")
_MARKED = re.compile(r"\(?([a-z])[).:](?!\S)(.*)")


def judge(answer: str, gold: str) -> tuple[float, str]:
    """1 if the answer is the gold label, however it is wrapped: `B`, `(B)`, `B.`, `\\boxed{B}`, `B) its text`."""
    if not gold.strip() or len(gold) > MAX_CHARACTERS:
        return 0.0, "the gold answer is no label"
    if len(answer) > MAX_CHARACTERS:
        return 0.0, "too long for a label"
    if hedged(answer, gold):
        return 0.0, "hedged"
    expected, found = _label(gold), _label(answer)
    if found == expected:
        return 1.0, "right"
    marked = _MARKED.fullmatch(found)
    if marked and marked[1] == expected and not _ANOTHER.search(marked[2]):
        return 1.0, "right"
    return 0.0, "wrong"


def _label(text: str) -> str:
    """Lower case, single spaces, no wrapping; a letter without its brackets."""
    text = _WRAPPER.sub(r"\1", text).replace("$", "").replace("*", "")
    text = _LEAD.sub("", " ".join(text.lower().split())).strip().rstrip(".").strip()
    letter = _LETTER.fullmatch(text)
    return letter[1] if letter else text
