"""Each completion gets the components that its kind of prompt has, and only those."""

import pytest

from r1kit.reward_function import reward_function
from r1kit.rewards import VerifierPool
from r1kit.rows import Problem
from r1kit.sampler import Completion

GOOD = "<think> we add three and four </think> <answer> 7 </answer>"


def problem(verifier: str = "math", **more: str) -> Problem:
    fields = {"id": "p/0", "source": "p", "licence": "MIT", "prompt": "3 + 4", "answer": "7", "verifier": verifier}
    return Problem.model_validate({**fields, **more})


def completion(text: str, finished: bool = True) -> Completion:
    return Completion((1,), text, (0.0,), finished)


def rewarded(rows, opens_think: bool = False, preference=None):
    with VerifierPool() as pool:
        reward = reward_function(pool, opens_think, preference)
        return reward([row[0] for row in rows], [row[1] for row in rows])


def test_reasoning_prompts_are_judged_by_rules() -> None:
    found = rewarded(
        [
            (problem(), completion(GOOD)),
            (problem(), completion(GOOD.replace("7", "8"))),
            (problem(), completion("7")),
            (problem(), completion(GOOD.replace("add", "加"))),
            (problem(), completion("")),
        ]
    )
    assert found[0] == {"format": 1, "language": 1, "accuracy": 1}
    assert found[1] == {"format": 1, "language": 1, "accuracy": 0}
    assert found[2] == {"format": 0, "language": 1, "accuracy": 1}, "right, but not in the format"
    assert found[3] == {"format": 1, "language": pytest.approx(4 / 5), "accuracy": 1}
    assert (found[4]["format"], found[4]["accuracy"]) == (0, 0)


def test_the_format_can_be_earned_where_the_template_opens_the_chain() -> None:
    inside = GOOD.removeprefix("<think>")
    assert rewarded([(problem(), completion(inside))], opens_think=True)[0] == {
        "format": 1,
        "language": 1,
        "accuracy": 1,
    }
    assert rewarded([(problem(), completion(GOOD))], opens_think=True)[0]["format"] == 0


def test_general_prompts_are_judged_by_the_preference_alone() -> None:
    seen: list[str] = []

    def preference(problems, completions):
        seen.extend(completions)
        return [0.25 * (n + 1) for n in range(len(problems))]

    rows = [
        (problem("none"), completion("the cat likes milk")),
        (problem(), completion(GOOD)),
        (problem("none"), completion("<think> what does it like </think> it likes milk")),
    ]
    found = rewarded(rows, preference=preference)
    assert seen == [rows[0][1].text, rows[2][1].text], "in order, and no reasoning prompt among them"
    assert found[0] == {"format": 1, "language": 1, "preference": 0.25}
    assert "preference" not in found[1] and found[1]["accuracy"] == 1
    assert found[2] == {"format": 1, "language": 1, "preference": 0.5}
    assert "preference" not in rewarded(rows)[0], "without reward models there is none"


def test_a_reply_may_compare_numbers() -> None:
    assert rewarded([(problem("none"), completion("3 < 4, so four is more"))])[0]["format"] == 1


@pytest.mark.parametrize(
    ("text", "finished"),
    [("it goes on", False), ("", True), ("<think> only a chain </think>", True), ("<think> never closed", True),
     (GOOD, True), ("a reply with <answer>", True), ("a </think> b </think> c", True)],
)  # fmt: skip
def test_an_untidy_reply_earns_no_format(text: str, finished: bool) -> None:
    assert rewarded([(problem("none"), completion(text, finished))])[0]["format"] == 0


def test_a_fraction_of_a_score_is_no_accuracy() -> None:
    """reasoning-gym gives consolation points, which would teach to guess."""
    row = problem("gym", meta='{"dataset": "chain_sum", "entry": {"answer": "7", "question": "", "metadata": {}}}')
    found = rewarded([(row, completion("<answer> 7 </answer>")), (row, completion("<answer> it is 7 or so </answer>"))])
    assert [components["accuracy"] for components in found] == [1, 0]
