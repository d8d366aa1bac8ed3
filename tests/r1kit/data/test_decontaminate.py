"""Overlap with a benchmark: equal texts and rare 10-grams, in any spelling."""

import pytest

from r1kit.data.decontaminate import MAX_ROWS_OF_A_PHRASE, SIZE, BenchmarkIndex
from r1kit.rows import Problem, Verifier

WORDS = [f"word{number}" for number in range(30)]


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


@pytest.mark.parametrize("start", [0, 7, 20])
def test_ten_words_in_a_row_are_overlap_and_nine_are_not(start: int) -> None:
    index = BenchmarkIndex([problem(" ".join(WORDS))])
    run = WORDS[start : start + SIZE]
    assert index.overlap("so " + " ".join(run) + " then") == "b/1"
    assert index.overlap("so " + " ".join(run[:-1]) + " then") is None


def test_solutions_count_and_spelling_does_not() -> None:
    index = BenchmarkIndex([problem("Short?", solution="; ".join(WORDS))])
    assert index.overlap(" ".join(WORDS[3:14]).upper()) == "b/1"
    assert index.overlap("  SHORT? ") == "b/1"
    assert index.overlap("Short? No.") is None


def test_signs_tell_short_questions_apart() -> None:
    index = BenchmarkIndex([problem("3 + 4 - 2 ="), problem("3 * 4 =", name="b/2")])
    assert index.overlap("3 - 4 + 2 =") is None
    assert index.overlap("3 * 4  =") == "b/2"


def test_chinese_characters_are_words() -> None:
    index = BenchmarkIndex([problem("小明有三本书又买了两本现在一共有几本")])
    assert index.overlap("老师说：小明有三本书，又买了两本。") == "b/1"
    assert index.overlap("小明有三本书") is None


def test_a_phrase_of_many_questions_tells_nothing() -> None:
    phrase = " ".join(WORDS[:SIZE])
    rows = [
        problem(f"{phrase} and question {number}", name=f"b/{number}") for number in range(MAX_ROWS_OF_A_PHRASE + 1)
    ]
    assert BenchmarkIndex(rows).overlap(f"But {phrase} is said of all") is None
    assert BenchmarkIndex(rows[1:]).overlap(f"But {phrase} is said of all") == "b/1"
    assert BenchmarkIndex(rows).overlap(rows[0].prompt) == "b/0"


def test_templates_count_as_whole_texts_only() -> None:
    text = " ".join(WORDS)
    assert BenchmarkIndex([problem(text, verifier="gym")]).overlap(f"{text} more") is None
    assert BenchmarkIndex([problem(text, verifier="gym")]).overlap(text) == "b/1"
    assert BenchmarkIndex([problem(text)]).overlap(f"{text} more", ngrams=False) is None
