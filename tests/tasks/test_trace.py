"""A row is followed both ways: to its source, its checkpoint and verdict, and to whatever learned from it."""

import json
import re
from collections.abc import Sequence

import pytest

from r1kit.rejection import Decision, write_decisions
from r1kit.rows import Problem, SftRow, write_rows
from tasks.artifacts import Artifact, describe
from tasks.trace import trace
from tasks.workspace import Workspace
from tests.tasks.recipe import Recipe, artifact

QUESTION = Problem(
    id="gsm8k_train/7", source="gsm8k_train", licence="MIT", prompt="What is 3 + 4?", verifier="math", answer="7"
)
OTHER = QUESTION.model_copy(update={"id": "gsm8k_train/8", "prompt": "What is 3 + 5?", "answer": "8"})
HELD = QUESTION.model_copy(update={"id": "math500/1", "prompt": "What is 9 + 9?", "answer": "18", "benchmark": "m"})
ASIDE = {
    "kind": "problems", "source": "gsm8k_train", "file": "math/gsm8k_train.jsonl", "row": 9, "id": "gsm8k_train/9",
    "field": "prompt", "value": "What is 9 + 9?", "reason": "repeats the benchmark row math500/1",
    "rule": "contaminated",
}  # fmt: skip
MANIFEST = {
    "sources": [
        {
            "source": "gsm8k_train", "licence": "MIT", "seed": None,
            "files": [{"path": "math/gsm8k_train.jsonl", "url": "https://example.org/g", "sha256": "ab" * 32}],
        }
    ]
}  # fmt: skip


def drawn(problem: Problem, number: int, checkpoint: str, reason: str) -> Decision:
    return Decision(
        row=f"reject/{problem.id}@{checkpoint[7:19]}/{number}", problem=problem.id, checkpoint=checkpoint,
        sample=number, verifier="math", score=float(reason != "wrong"), kept=reason == "equal", reason=reason,
    )  # fmt: skip


def kept(decision: Decision) -> SftRow:
    return SftRow(
        id=decision.row, source="reject", licence="MIT", parents=(decision.problem,), prompt=QUESTION.prompt,
        response="<think> 3 4 </think> <answer> 7 </answer>", kind="chain",
    )  # fmt: skip


class Curated(Recipe):
    """A run with sampling: data, base, reason, reject, refine, a reward model apart."""

    def rows(self, name: str, kind: str, rows: Sequence[Problem] | Sequence[SftRow], of: type) -> Artifact:
        path = self.root / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, rows, of)
        return describe(path, kind)

    def make_all(self, weights: str = "dev2") -> None:
        problems = self.rows("problems", "problems", [OTHER, QUESTION], Problem)
        benchmarks = self.rows("benchmarks", "benchmarks", [HELD], Problem)
        manifest = artifact(self.root / "manifest.json", "manifest", json.dumps(MANIFEST))
        aside = artifact(self.root / "quarantine.jsonl", "quarantine", json.dumps(ASIDE) + "\n")
        self.stage(
            "data",
            {},
            {"problems": problems, "benchmarks": benchmarks, "manifest": manifest, "quarantine": aside},
        )
        base = artifact(self.root / "base", "model", "base")
        self.stage("base", {}, {"model": base})
        dev2 = artifact(self.root / "dev2", "model", weights)
        self.stage("reason", {"model": base, "problems": problems}, {"model": dev2})
        self.decisions = [
            drawn(QUESTION, 0, dev2.digest, "wrong"), drawn(QUESTION, 1, dev2.digest, "equal"),
            drawn(OTHER, 0, dev2.digest, "cut"),
        ]  # fmt: skip
        write_decisions(self.root / "decisions.jsonl", self.decisions)
        curated = self.rows("curated", "sft_rows", [kept(self.decisions[1])], SftRow)
        told = describe(self.root / "decisions.jsonl", "decisions")
        self.stage(
            "reject",
            {"model": dev2, "problems": problems, "benchmarks": benchmarks},
            {"curated": curated, "decisions": told},
        )
        dev3 = artifact(self.root / "dev3", "model", "dev3")
        self.stage("refine", {"model": base, "curated": curated}, {"model": dev3})
        self.stage("distill", {"model": base, "curated": curated}, {"model": artifact(self.root / "s", "model", "s")},
                   instance="small")  # fmt: skip


@pytest.fixture
def run(workspace: Workspace) -> Curated:
    recipe = Curated(workspace)
    recipe.make_all()
    return recipe


def test_a_question_is_followed_to_its_source_its_samples_and_the_models(workspace: Workspace, run: Curated) -> None:
    found = trace(workspace, QUESTION.id)
    (place,) = found.places
    assert (place.role, place.stage, place.number) == ("problems", "data", 2)
    assert place.values["prompt"] == QUESTION.prompt
    assert found.origin["files"] == MANIFEST["sources"][0]["files"] and found.origin["source"] == "gsm8k_train"
    assert [(s.sample, s.model, s.kept, s.reason) for s in found.samples] == [
        (0, "dev2", False, "wrong"),
        (1, "dev2", True, "equal"),
    ]
    assert found.children == (run.decisions[1].row,)
    ways = {learner.model: re.sub(r" \(entry \d+\)", "", learner.way) for learner in found.learners}
    assert ways == {
        "dev2": "problems → reason → dev2",
        "dev3": "curated → refine → dev3",
        "distill-small": "curated → distill[small] → distill-small",
    }


def test_a_curated_row_names_its_question_checkpoint_sample_and_verdict(workspace: Workspace, run: Curated) -> None:
    decision = run.decisions[1]
    found = trace(workspace, decision.row)
    assert found.sample is not None
    assert found.sample.checkpoint == decision.checkpoint and found.sample.model == "dev2"
    assert (found.sample.sample, found.sample.score, found.sample.verifier) == (1, 1.0, "math")
    (parent,) = found.parents
    assert parent.row == QUESTION.id and parent.origin["source"] == "gsm8k_train"
    assert {learner.model for learner in found.learners} == {"dev3", "distill-small"}


def test_a_dropped_sample_has_its_reason_and_its_question(workspace: Workspace, run: Curated) -> None:
    found = trace(workspace, run.decisions[2].row)
    assert not found.places and found.sample is not None
    assert (found.sample.kept, found.sample.reason) == (False, "cut")
    assert [parent.row for parent in found.parents] == [OTHER.id] and not found.learners


def test_a_row_that_was_set_aside_is_told_with_its_reason(workspace: Workspace, run: Curated) -> None:
    found = trace(workspace, "gsm8k_train/9")
    assert [(a.rule, a.number, a.reason) for a in found.set_aside] == [("contaminated", 9, ASIDE["reason"])]
    assert not found.places and not found.learners


def test_nothing_learns_from_a_benchmark(workspace: Workspace, run: Curated) -> None:
    found = trace(workspace, HELD.id)
    assert [place.role for place in found.places] == ["benchmarks"] and not found.learners


def test_the_latest_run_that_knows_the_row_answers(workspace: Workspace, run: Curated) -> None:
    later = Curated(workspace, "run-2")
    later.make_all("another dev2")
    assert trace(workspace, QUESTION.id).run == "run-2"
    assert trace(workspace, run.decisions[1].row).run == "run-1"
    assert trace(workspace, QUESTION.id, "run-1").samples[0].row == run.decisions[0].row


def test_a_file_that_is_gone_or_altered_is_said(workspace: Workspace, run: Curated) -> None:
    (run.root / "decisions.jsonl").write_text("")
    found = trace(workspace, QUESTION.id)
    assert not found.samples and len(found.missing) == 1 and "was altered" in found.missing[0]


def test_an_unknown_row_is_one_sentence_that_shows_what_ids_look_like(workspace: Workspace, run: Curated) -> None:
    with pytest.raises(ValueError, match=r"no row 'gsm8k/7' in any of 1 runs; ids look like gsm8k_train/8"):
        trace(workspace, "gsm8k/7")
    with pytest.raises(ValueError, match="no run 'run-7' in the ledger; did you mean 'run-1'"):
        trace(workspace, QUESTION.id, "run-7")


def test_before_any_run_it_says_so(workspace: Workspace) -> None:
    with pytest.raises(ValueError, match="no run is in the ledger yet"):
        trace(workspace, "x")
