"""What a completion may not hold to be learned from."""

import pytest

from r1kit.chat import response
from r1kit.rewards import readable

CHAIN = "First we add three and four, which makes seven; then we take two away and five remains."


def test_plain_chains_are_readable_in_their_language() -> None:
    assert readable(response(CHAIN, "5"), "en") is None
    assert readable(response("首先把三和四相加得到七，然后减去二，剩下五。", "5"), "zh") is None
    assert readable("A short reply without a chain.", "en") is None
    assert readable(response("3 + 4 - 2 = 5", "5"), "en") is None
    assert readable(response("因为 AB = CD，所以 Smith 有五个苹果，还剩下三个，一共是八个苹果。", "8"), "zh") is None


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (CHAIN + " 然后减去二", "mixed languages"),
        ("again and " * 100, "repetition"),
        (CHAIN + "\n```python\nprint(5)\n```", "code block in the chain"),
        (
            " ".join(f"w{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}" for n in range(800)),
            "very long paragraph",
        ),
        (CHAIN + "\0", "broken characters"),
        (CHAIN + "\ufffd", "broken characters"),
        (CHAIN + "\x1b[2J", "broken characters"),
    ],
)
def test_unreadable_chains_say_why(chain: str, reason: str) -> None:
    assert readable(response(chain, "5"), "en") == reason
    assert readable(response(chain, "5").removeprefix("<think>"), "en", opens_think=True) == reason


def test_code_outside_the_chain_is_the_answers_business() -> None:
    assert readable(response(CHAIN, "```python\nprint(5)\n```"), "en") is None
