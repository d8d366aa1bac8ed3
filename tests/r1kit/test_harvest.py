"""Sampling and keeping: a harvest that was killed goes on and ends with the same rows."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from r1kit.harvest import harvest
from r1kit.rejection import Selection
from r1kit.rewards import VerifierPool
from r1kit.sampler import SamplingConfig
from tests.r1kit.trained import PROBLEMS, save_trained

DIGEST = "sha256:" + "ab" * 32


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_trained(tmp_path_factory.mktemp("trained"))


def reap(model: Path, workdir: Path, log=lambda *_: None, **options) -> Selection:
    with VerifierPool() as pool:
        return harvest(
            model, PROBLEMS, samples_per_prompt=4, keep_per_prompt=2, pool=pool,
            batch_size=options.pop("batch_size", 8),
            sampling=SamplingConfig(max_tokens=24, temperature=1.5), checkpoint=DIGEST, prefix="reject", seed=3,
            workdir=workdir, log=log, **options,
        )  # fmt: skip


def test_what_is_kept_is_right_and_everything_is_accounted_for(model: Path, tmp_path: Path) -> None:
    selection = reap(model, tmp_path / "work")
    assert len(selection.decisions) == 4 * len(PROBLEMS)
    assert 3 <= len(selection.rows) < len(selection.decisions)
    assert {row.parents[0] for row in selection.rows} <= {problem.id for problem in PROBLEMS}
    assert all("<answer> 7 </answer>" in row.response for row in selection.rows)
    assert {decision.row for decision in selection.decisions if decision.kept} == {row.id for row in selection.rows}


@pytest.mark.parametrize("kill_after", [2, 6])
def test_killed_between_batches_it_ends_with_the_same_rows(model: Path, tmp_path: Path, kill_after: int) -> None:
    sampled: list[int] = []

    def die(done: int, total: int, metrics: Mapping[str, float]) -> None:
        sampled.append(done)
        if done == kill_after:
            raise Killed

    with pytest.raises(Killed):
        reap(model, tmp_path / "killed", die)
    assert sampled[-1] == kill_after
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.json")}
    (tmp_path / "killed" / "99999999.tmp").write_text('{"rows": [')  # a kill amid a write leaves this
    again = reap(model, tmp_path / "killed")
    assert again == reap(model, tmp_path / "whole")
    assert (
        before.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*.json")}.items()
    )


def test_other_surroundings_are_counted(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(done: int, total: int, metrics: Mapping[str, float]) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        reap(model, tmp_path, die)
    monkeypatch.setattr("r1kit.harvest.surroundings", lambda: {"threads": 64})
    assert reap(model, tmp_path).metrics()["resumed_elsewhere"] == 1


def test_the_size_of_a_batch_does_not_change_what_is_kept(model: Path, tmp_path: Path) -> None:
    small, large = reap(model, tmp_path / "small", batch_size=4), reap(model, tmp_path / "large", batch_size=32)
    assert small == large


def test_progress_counts_problems_to_the_end(model: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    reap(model, tmp_path, lambda done, total, _: seen.append((done, total)), batch_size=12)
    assert seen == [(3, 8), (6, 8), (8, 8)]


def test_benchmark_text_is_not_harvested(model: Path, tmp_path: Path) -> None:
    selection = reap(model, tmp_path, contaminated=lambda text: "gsm8k/1" if "plus" in text else None)
    assert not any("plus" in row.response for row in selection.rows)
    assert any(decision.reason == "contaminated: gsm8k/1" for decision in selection.decisions)
