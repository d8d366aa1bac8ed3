"""Overlap with a benchmark: equal texts, long runs of words, other numbers, nearly the same words; in any spelling."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.decontaminate import WAYS
from r1kit.data.decontaminate import BenchmarkIndex
from r1kit.data.overlap import MAX_ROWS_OF_A_PHRASE, MIN_RUN_WORDS, Held, Overlap, OverlapIndex
from r1kit.data.texts import Vocabulary
from r1kit.rows import PreferencePair, Problem, SftRow, Verifier

WORDS = [f"w{chr(97 + number // 26)}{chr(97 + number % 26)}" for number in range(60)]
QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did "
    "Natalia sell altogether in April and May, if she gave 5 of them away?"
)


def problem(prompt: str, solution: str = "", name: str = "b/1", verifier: Verifier = "math") -> Problem:
    return Problem(
        id=name,
        source="b",
        licence="MIT",
        prompt=prompt,
        solution=solution,
        answer="1",
        verifier=verifier,
        benchmark="b",
    )


def find(index: OverlapIndex, text: str, response: str = "", whole: bool = False) -> Overlap | None:
    return index.find({"prompt": text, "response": response}, whole)


def index_of(*texts: str, whole: bool = False) -> OverlapIndex:
    return OverlapIndex(Held(f"b/{number}", "prompt", text, whole) for number, text in enumerate(texts, 1))


@pytest.mark.parametrize("start", [0, 7, 30])
def test_a_long_run_of_words_is_overlap_and_a_shorter_one_is_a_phrase(start: int) -> None:
    index = index_of(" ".join(WORDS))
    run = WORDS[start : start + MIN_RUN_WORDS]
    found = find(index, "so " + " ".join(run) + " then")
    assert found is not None and (found.benchmark, found.method, found.text) == ("b/1", "10-gram", " ".join(run))
    assert find(index, "so " + " ".join(run[:-1]) + " then") is None


def test_ten_words_are_overlap_where_they_are_much_of_the_question() -> None:
    index = index_of(" ".join(WORDS[:26]))
    assert find(index, "so " + " ".join(WORDS[5:20]) + " then") is not None
    assert find(index, "so " + " ".join(WORDS[5:14]) + " then") is None


def test_other_numbers_are_the_same_question() -> None:
    text = "A {} cm rod is cut at {} cm, then {} more times at every {} cm. How many of the pieces are over {} cm?"
    found = find(index_of(text.format(240, 15, 3, 20, 18)), text.format(300, 11, 4, 25, 22))
    assert found is not None and (found.method, found.share) == ("renumbered", 1)


def test_other_words_here_and_there_in_another_order_are_nearly_the_same() -> None:
    others = [f"{' '.join(random.Random(n).sample(WORDS, 25))}?" for n in range(30)]
    changed = (
        "How many clips did Maria sell altogether in April and May, if she gave 5 of them away? Maria sold clips to 48 "
        "of her pals in April, and afterwards she sold half as many clips in May."
    )
    found = find(index_of(QUESTION, *others), changed)
    assert found is not None and (found.benchmark, found.benchmark_field) == ("b/1", "prompt")


def test_other_words_around_the_same_numbers_are_the_same_question() -> None:
    others = [f"{' '.join(random.Random(n).sample(WORDS, 25))}?" for n in range(30)]
    changed = (
        "In April 48 of her pals bought clips from Maria, and May brought half as many again. {} clips went away as "
        "presents. What does that make for April and May altogether?"
    )
    found = find(index_of(QUESTION, *others), changed.format(5))
    assert found is not None and (found.benchmark, found.method) == ("b/1", "reworded")
    assert find(index_of(QUESTION, *others), changed.format(6)) is None
    assert find(index_of(QUESTION, *others), "48 " + " ".join(WORDS[:30]) + " 5") is None


def test_a_question_over_two_fields_is_found_and_both_are_named() -> None:
    half = len(QUESTION.split()) // 2
    parts = " ".join(QUESTION.split()[:half]), " ".join(QUESTION.split()[half:])
    found = find(index_of(QUESTION), *parts)
    assert found is not None and found.field == "prompt+response" and found.share == 1


def test_short_texts_count_as_a_whole_and_signs_tell_them_apart() -> None:
    index = index_of("3 + 4 - 2 =", "3 * 4 =", "Short?")
    assert find(index, "3 - 4 + 2 =") is None and find(index, "Short? No.") is None
    for text, row in (("3 * 4  =", "b/2"), ("  SHORT? ", "b/3")):
        found = find(index, text)
        assert found is not None and (found.benchmark, found.method) == (row, "exact")


def test_chinese_characters_are_words() -> None:
    index = index_of("小明有三本书又买了两本现在一共有几本")
    assert find(index, "老师说：小明有三本书，又买了两本。") is not None
    assert find(index, "小明有三本书") is None


def test_a_word_is_the_same_number_whatever_was_read_before() -> None:
    worn = Vocabulary()
    for start in range(0, 9000, 700):
        worn.read(" ".join(f"w{number} {number}" for number in range(start, start + 1500)))
    text = "Of 48 clips w17 and w8999 were sold, new ones too."
    for read in (worn.read(text), worn.read(text)):
        fresh = Vocabulary().read(text)
        assert read.words == fresh.words
        assert (read.exact == fresh.exact).all() and (read.masked == fresh.masked).all()
        assert (read.masked == read.exact).sum() == len(read.words) - 1


def test_spaces_and_longer_texts_do_not_hide_a_whole_one() -> None:
    index = index_of("3 + 4 =", QUESTION)
    found = find(index, "\n\n 3    +\t4 = \u00a0 ")
    assert found is not None and (found.benchmark, found.method) == ("b/1", "exact")
    assert find(index, "3 + 4 =", "3 + 4 = " * 100) is not None
    assert find(index, "3 + 4 = " * 100) is None


def test_a_phrase_of_many_questions_tells_nothing() -> None:
    phrase = " ".join(WORDS[:MIN_RUN_WORDS])
    own = [" ".join(f"{sign}{word}" for word in WORDS[20:]) for sign in "abcdefgh"[: MAX_ROWS_OF_A_PHRASE + 1]]
    rows = [f"{phrase} {words}" for words in own]
    assert find(index_of(*rows), f"But {phrase} is said of all") is None
    assert find(index_of(*rows[1:]), f"But {phrase} is said of all") is not None
    assert find(index_of(*rows), rows[0]) is not None


def test_runs_of_numbers_tell_nothing() -> None:
    numbers = " ".join(map(str, range(40)))
    assert find(index_of(f"Add up {numbers}, please."), f"She counted {numbers} sheep.") is None


def test_templates_count_as_whole_texts_only() -> None:
    text = " ".join(WORDS)
    templated = BenchmarkIndex([problem(text, verifier="gym")])
    assert templated.sampled(f"{text} more") is None and templated.sampled(text) is not None
    assert find(index_of(text), f"{text} more", whole=True) is None


def test_every_text_of_every_kind_of_row_is_looked_at() -> None:
    index = BenchmarkIndex([problem("What?", solution=QUESTION)])
    common: dict[str, Any] = {"id": "t/1", "source": "t", "licence": "MIT"}
    rows = {
        "solution": Problem(**common, prompt="Hm?", verifier="math", answer="1", solution=QUESTION),
        "response": SftRow(**common, prompt="Hm?", response=QUESTION, kind="chain"),
        "rejected": PreferencePair(**common, prompt="Hm?", chosen="No.", rejected=QUESTION, route="helpful"),
    }
    for field, row in rows.items():
        found = index.overlap(row)
        assert found is not None
        assert (found.field, found.benchmark, found.benchmark_field) == (field, "b/1", "solution")


sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=80).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(sentences, min_size=1, max_size=6), st.data())
def test_a_benchmark_against_itself_finds_every_row(texts: list[str], data: st.DataObject) -> None:
    index = index_of(*texts)
    for text in texts:
        assert find(index, text.upper()) is not None
        before = data.draw(sentences)
        assert find(index, text, before) is not None


@settings(max_examples=60, deadline=None)
@given(st.lists(sentences, min_size=2, max_size=8), sentences, st.randoms())
def test_the_order_of_a_benchmark_changes_no_verdict(texts: list[str], text: str, dice: random.Random) -> None:
    held = [Held(f"b/{number}", "prompt", one) for number, one in enumerate(texts)]
    shuffled = dice.sample(held, len(held))
    one, other = find(OverlapIndex(held), text), find(OverlapIndex(shuffled), text)
    assert (one is None) == (other is None)


def test_recall_and_precision_on_planted_rows() -> None:
    """The benchmark's planting on made-up questions: five ways into training rows, beside rows that are their own."""
    dice = random.Random(3)
    vocabulary = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in ("r", "st", "n", "lt", "p")]

    def question() -> str:
        return " ".join(dice.choice(vocabulary) if n % 6 else str(dice.randrange(2, 99)) for n in range(1, 40)) + "?"

    held = [question() for _ in range(40)]
    index = index_of(*held)
    found: dict[str, int] = {}
    for number, text in enumerate(held):
        row = problem(text, name=f"b/{number}")
        for name, way in WAYS.items():
            found[name] = found.get(name, 0) + (index.find(way(row, random.Random(number))) is not None)
    assert found == dict.fromkeys(WAYS, 40)
    assert not any(find(index, question(), question()) for _ in range(300))
