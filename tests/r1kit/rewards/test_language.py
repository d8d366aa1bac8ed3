"""The share of words in the prompt's language."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.rewards import language_share

ENGLISH = "First we add three and four, which makes seven; then we take two away and five is what remains. "
GERMAN = "Zuerst addieren wir drei und vier, das ergibt sieben; danach ziehen wir zwei ab und es bleiben fünf übrig. "
CHINESE = "首先把三和四相加得到七，然后减去二，剩下五。"


@pytest.mark.parametrize(
    "text", ["", "3 + 4 = 7", "$x^2 + y$", "\\frac{1}{2} \\cdot \\pi", "AB = CD, x = 3", "<think> </think>"]
)
def test_text_without_words_is_at_home_everywhere(text: str) -> None:
    assert language_share(text, "en") == language_share(text, "zh") == 1


def test_one_language_scores_1_and_the_other_0() -> None:
    assert language_share(ENGLISH, "en") == 1 and language_share(CHINESE, "zh") == 1
    assert language_share(ENGLISH, "zh") == 0 and language_share(CHINESE, "en") == 0


def test_the_share_is_words_over_words() -> None:
    assert language_share("start 加 three 得 seven", "en") == pytest.approx(3 / 5)
    assert language_share("start 加 three 得 seven", "zh") == pytest.approx(2 / 5)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["seven", "加", "得", "makes", " 3 + 4 ", "x", "\\frac{1}{2}", "<think>", "AB"]), max_size=30
    )
)
def test_two_languages_share_what_there_is(words: list[str]) -> None:
    text = " ".join(words)
    english, chinese = language_share(text, "en"), language_share(text, "zh")
    assert min(english, chinese) >= 0
    assert english + chinese == pytest.approx(1 if english + chinese < 2 else 2)
    assert language_share(f"{text} seven", "en") >= english or english == 1
    assert language_share(f"{text} 加", "zh") >= chinese or chinese == 1


def test_more_of_another_language_never_raises_the_share() -> None:
    shares = [language_share(ENGLISH * 5 + CHINESE * n, "en") for n in range(6)]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[-1]


def test_other_languages_of_the_same_script_are_found() -> None:
    assert language_share(ENGLISH * 5, "en") == 1
    assert language_share(GERMAN * 5, "en") < 0.2
    assert language_share(ENGLISH * 5 + GERMAN * 5, "en") < 0.9


@pytest.mark.parametrize("text", ["Сначала сложим три и четыре", "まずさんとよんをたす", "먼저 셋과 넷을 더한다"])
def test_other_scripts_are_neither(text: str) -> None:
    assert language_share(text, "en") < 0.1


@pytest.mark.parametrize(
    "text", ["word " * 200_000, "字" * 10**6, "<think>" * 150_000, "\\" * 10**6, "a'" * 500_000, "http://" * 140_000]
)
def test_time_is_linear(text: str) -> None:
    started = time.monotonic()
    assert 0 <= language_share(text, "en") <= 1
    assert time.monotonic() - started < 10
