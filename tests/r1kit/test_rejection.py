"""What rejection sampling keeps, and what it says of the rest."""

from r1kit.rejection import select
from r1kit.rewards import Verdict
from r1kit.rows import Problem
from r1kit.sampler import Completion

DIGEST = "sha256:" + "ab" * 32
PROBLEM = Problem(id="sum/7", source="sum", licence="MIT", prompt="3 + 4 ?", verifier="math", answer="7")
GOOD = "<think> start 3 plus 4 makes 7 </think> <answer> 7 </answer>"


def completion(text: str, finished: bool = True) -> Completion:
    return Completion(token_ids=(1, 2), text=text, logprobs=(0.0, 0.0), finished=finished)


def run(samples, keep=4, **options):
    """`samples`: (text, right, finished) of one problem."""
    group = [completion(text, finished) for text, _, finished in samples]
    verdicts = [
        Verdict(score=float(right), reason="equal" if right else "differs", seconds=0.0) for _, right, _ in samples
    ]
    return select([PROBLEM], [group], verdicts, keep_per_prompt=keep, checkpoint=DIGEST, **options)


def test_a_kept_row_names_prompt_checkpoint_and_sample():
    selection = run([("<answer> 8 </answer>", False, True), (GOOD, True, True)])
    (row,) = selection.rows
    assert row.id == "reject/sum/7@abababababab/1"
    assert row.parents == ("sum/7",)
    assert row.response == GOOD
    assert selection.decisions[1].row == row.id
    assert selection.decisions[1].checkpoint == DIGEST
    assert selection.decisions[1].score == 1.0


def test_every_sample_leaves_a_decision_with_its_reason():
    mixed = "<think> start 3 加 4 得 7 加 0 得 7 起 </think> <answer> 7 </answer>"
    selection = run(
        [
            (GOOD, True, True),
            (GOOD.replace(" 7 </think>", "  7  </think>"), True, True),
            ("<think> 3 plus 4 makes 8 </think> <answer> 8 </answer>", False, True),
            ("<think> 3 plus 4 makes 7", True, False),
            ("7", True, True),
            (mixed, True, True),
        ]
    )
    reasons = [d.reason.split(":")[0] for d in selection.decisions]
    assert reasons == ["equal", "duplicate", "wrong", "cut", "format", "unreadable"]
    assert selection.counts()["kept"] == len(selection.rows) == 1
    assert sum(selection.counts().values()) == 6


def test_surplus_is_dropped_in_the_order_drawn():
    texts = [GOOD.replace("start", f"start {n} minus {n} makes 0 plus") for n in range(5)]
    selection = run([(text, True, True) for text in texts], keep=2)
    assert [row.id[-1] for row in selection.rows] == ["0", "1"]
    assert [d.reason for d in selection.decisions[2:]] == ["surplus"] * 3


def test_benchmark_text_is_kept_out():
    selection = run([(GOOD, True, True)], contaminated=lambda text: "gsm8k/12" if "plus 4" in text else None)
    assert selection.rows == []
    assert selection.decisions[0].reason == "contaminated: gsm8k/12"
    assert selection.metrics()["problems_kept_share"] == 0.0
