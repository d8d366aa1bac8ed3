"""The tiny world is what it says."""

import json

import reasoning_gym

from r1kit import tinyworld
from r1kit.tinyworld import tokenizer


def test_chains_end_in_the_right_answer() -> None:
    problems = {row.prompt: row for row in tinyworld.problems(4, 60)}
    chains = list(tinyworld.chains(4, 60))
    assert len(chains) == 60
    for row in chains:
        problem = problems[row.prompt]
        content = json.loads(problem.meta)
        score = reasoning_gym.get_score_answer_fn(content["dataset"])
        last = row.response.split("</think>")[0].split()[-1]
        assert score(last, content["entry"]) == 1.0  # pyright: ignore[reportCallIssue]  (its annotation is wrong)
        assert row.response.endswith(f"<answer> {problem.answer} </answer>")


def test_the_same_seed_gives_the_same_rows_and_another_others() -> None:
    assert list(tinyworld.pretrain(1, 50)) == list(tinyworld.pretrain(1, 50))
    first = {row.prompt for row in tinyworld.problems(1, 50)}
    second = {row.prompt for row in tinyworld.problems(2, 50)}
    assert len(first & second) < 5


def test_ids_are_unique() -> None:
    for rows in (tinyworld.pretrain(1, 300), tinyworld.chains(1, 300), tinyworld.preferences(1, 300)):
        ids = [row.id for row in rows]
        assert len(set(ids)) == len(ids)


def test_the_tokenizer_knows_every_row_and_gives_it_back() -> None:
    own = tokenizer()
    rows = [*tinyworld.pretrain(1, 400), *tinyworld.instructions(1, 100), *tinyworld.chains(1, 100)]
    for row in rows:
        ids = own(row.response).input_ids
        assert own.unk_token_id not in ids
        assert own.decode(ids) == row.response


def test_the_base_learns_chains_first_and_ends_on_direct_answers() -> None:
    rows = list(tinyworld.pretrain(1, 1000))
    early = sum("<think>" in row.response for row in rows[:750]) / 750
    late = sum("<think>" in row.response for row in rows[750:]) / 250
    assert early > 0.65 and late < 0.25


def test_held_out_pairs_are_the_last_fifth() -> None:
    pairs = list(tinyworld.preferences(1, 100))
    assert [pair.split for pair in pairs] == ["train"] * 80 + ["heldout"] * 20
    assert all(pair.chosen != pair.rejected for pair in pairs)
