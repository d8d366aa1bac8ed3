"""Promotion on a real MLflow: gates, copies, rollback, kills, and two at once."""

import json
import multiprocessing
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from r1kit.guard import Guard, GuardConfig, Measurement
from r1kit.promotion import PromotionConfig
from tasks import promotion
from tasks.approvals import approve
from tasks.artifacts import local_path
from tasks.audit import audit
from tasks.ledger import Ledger, open_ledger
from tasks.lineage import history, resolve_model
from tasks.promotion import PromotionRefused, promote, rollback
from tasks.register import register
from tasks.store import fetch
from tasks.tracking import client_of
from tasks.workspace import Workspace
from tests.tasks.recipe import BENCHMARK, Recipe, approver

ALICE = "alice@example.org"
FREE = PromotionConfig(approvals={"staging": 0, "production": 0})
STRICT = PromotionConfig()
FLOORS = FREE.model_copy(update={"floors": {BENCHMARK: 0.6, "other": 0.1}})


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def candidate(workspace: Workspace, run: str = "run-1", correct: float = 0.8, **options: Any) -> None:
    Recipe(workspace, run).make(correct, weights=run, **options)
    register(workspace, run=run)


def aliases(workspace: Workspace, environment: str) -> dict[str, str]:
    found = client_of(workspace).get_registered_model(f"r1kit-{environment}").aliases
    return {alias: str(version) for alias, version in found.items()}


def refused(workspace: Workspace, to: Any = "staging", settings: Any = FREE, **options: Any) -> str:
    with pytest.raises(PromotionRefused) as caught:
        promote(workspace, "r1", to, settings=settings, **options)
    assert history(open_ledger(workspace).entries(), "r1kit", to) == []
    return str(caught.value)


def test_to_staging_to_production_and_back(tracked: Workspace, tmp_path: Path) -> None:
    key, approvers = approver(tmp_path), tmp_path / "approvers"
    for run in ("run-1", "run-2"):
        candidate(tracked, run)
        for to in ("staging", "production"):
            approve(tracked, "r1", to, approver=ALICE, key=key, approvers=approvers)
            promote(tracked, "r1", to, settings=STRICT, approvers=approvers)
    for environment in ("staging", "production"):
        assert aliases(tracked, environment) == {"current": "2", "previous": "1"}
        held = resolve_model(environment, tracked)
        assert held.name == f"r1kit-{environment}" and held.version == "2"
        place = fetch(held.artifact, tracked)
        assert place.is_relative_to(tracked.artifacts_dir / "environments" / f"r1kit-{environment}")
        assert (place / "model.safetensors").read_text() == "run-2"

    back = rollback(tracked, "production", reason="it rambles")
    assert (back.version, back.previous) == ("1", "2")
    assert aliases(tracked, "production") == {"current": "1"}
    assert resolve_model("production", tracked).version == "1"
    assert resolve_model("staging", tracked).version == "2"
    assert open_ledger(tracked).verify() == []
    with pytest.raises(ValueError, match="only r1kit-production/1"):
        rollback(tracked, "production")
    with pytest.raises(PromotionRefused, match="rolled back from production since"):
        promote(tracked, "r1", "production", settings=STRICT, approvers=approvers)


def test_without_approval_it_is_refused(tracked: Workspace, tmp_path: Path) -> None:
    candidate(tracked)
    approver(tmp_path)
    message = refused(tracked, settings=STRICT, approvers=tmp_path / "approvers")
    assert "approvals: 0 valid approvals for staging, wanted 1 by others than submitter@example.org" in message
    assert "r1 approve r1 --to staging" in message
    assert "list the approvers there" in refused(tracked, settings=STRICT, approvers=tmp_path / "none")


def test_production_only_from_staging(tracked: Workspace) -> None:
    candidate(tracked)
    assert "promote it to staging first" in refused(tracked, to="production")
    promote(tracked, "r1", "staging", settings=FREE)
    candidate(tracked, "run-2")
    assert "comes from candidate" in refused(tracked, to="production")
    promote(tracked, "r1", "staging", settings=FREE)
    with pytest.raises(PromotionRefused, match="staging, which holds another model now"):
        promote(tracked, "r1kit-staging/1", "production", settings=FREE)
    with pytest.raises(ValueError, match="already holds"):
        promote(tracked, "r1", "staging", settings=FREE)


def test_unvalidated_data_are_refused(tracked: Workspace) -> None:
    candidate(tracked, validated=False)
    assert "data: trained on problems sha256:" in refused(tracked)


def test_altered_bytes_are_refused(tracked: Workspace) -> None:
    candidate(tracked)
    place = local_path(resolve_model("candidate", tracked).artifact.uri)
    assert place is not None
    (place / "model.safetensors").write_text("altered")
    assert "signature: " in refused(tracked) and "was altered" in refused(tracked)


def test_an_altered_ledger_is_refused(tracked: Workspace) -> None:
    candidate(tracked)
    first = tracked.ledger_dir / "00000001.json"
    first.write_text(json.dumps(json.loads(first.read_text())))
    assert "ledger: ledger entry 2 does not follow" in refused(tracked)


def test_floors(tracked: Workspace) -> None:
    candidate(tracked, correct=0.5)
    message = refused(tracked, settings=FLOORS)
    assert f"floor: pass@1 on {BENCHMARK} is 0.500 (n = 200), wanted at least 0.600" in message
    assert "it was not evaluated on other" in message


def test_a_worse_model_does_not_replace_the_holder(tracked: Workspace) -> None:
    candidate(tracked, correct=0.8)
    promote(tracked, "r1", "staging", settings=FREE)
    candidate(tracked, "run-2", correct=0.5)
    with pytest.raises(PromotionRefused, match=r"comparison: arithmetic: -0\.300 .* against r1kit-staging/1"):
        promote(tracked, "r1", "staging", settings=FREE)
    candidate(tracked, "run-3", correct=0.82)
    assert promote(tracked, "r1", "staging", settings=FREE).previous == "1"


def test_reward_hacking_is_refused(tracked: Workspace) -> None:
    candidate(tracked, correct=0.4, preference=1.0)
    message = refused(tracked)
    assert "reward hacking: general: +1.000" in message and "arithmetic: -0.100" in message
    candidate(tracked, "run-2", correct=0.6, preference=1.0)
    promote(tracked, "r1", "staging", settings=FREE)


def test_a_model_whose_training_rang_the_alarm_is_refused_however_it_was_evaluated(tracked: Workspace) -> None:
    liked = tuple(0.1 + n / 50 for n in range(16))
    first = Measurement(step=4, accuracy=(1.0,) * 16, preference=(0.1,) * 16)
    rang = Guard().after(first, GuardConfig(), 1)
    rang = rang.after(Measurement(step=9, accuracy=(0.0,) * 16, preference=liked), GuardConfig(), 1)
    candidate(tracked, correct=0.9, metrics=rang.facts())
    message = refused(tracked)
    assert "reward hacking: the alarm of preference RL rang after step 9" in message
    assert "scores went from 0.100 to 0.250, accuracy from 1.000 to 0.000, wanted no alarm" in message
    calm = Guard().after(first, GuardConfig(), 1).after(first, GuardConfig(), 1)
    candidate(tracked, "run-2", correct=0.9, metrics=calm.facts())
    promote(tracked, "r1", "staging", settings=FREE)


@pytest.mark.parametrize(
    ("where", "name", "finished"),
    [
        (promotion, "_copy", False),
        (promotion, "create_version", False),
        (promotion, "finish", True),
        (promotion, "project_aliases", True),
    ],
)
def test_a_killed_promotion_is_finished_or_undone(
    tracked: Workspace, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, finished: bool
) -> None:
    candidate(tracked)

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if name == "create_version":
            patch.setattr("tasks.promotion.create_version", kill)
        else:
            patch.setattr(where, name, kill)
        with pytest.raises(Killed):
            promote(tracked, "r1", "staging", settings=FREE)

    report = audit(tracked, "candidate")
    assert report.sound and report.repaired
    entries = open_ledger(tracked).entries()
    assert promotion.unfinished(entries) == []
    assert len(history(entries, "r1kit", "staging")) == (1 if finished else 0)
    if not finished:
        promote(tracked, "r1", "staging", settings=FREE)
    assert len(history(open_ledger(tracked).entries(), "r1kit", "staging")) == 1
    held = resolve_model("staging", tracked)
    assert aliases(tracked, "staging") == {"current": held.version}
    found = client_of(tracked).search_model_versions("name = 'r1kit-staging'")
    assert [str(version.version) for version in found] == [held.version]


def test_what_fails_is_undone_at_once(tracked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate(tracked)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tasks.promotion.copy_model", full)
        with pytest.raises(OSError, match="No space left"):
            promote(tracked, "r1", "staging", settings=FREE)
    assert open_ledger(tracked).entries()[-1].entry.status == "undone"


def _compete(workspace: Workspace, reference: str, start: Barrier, answer: Callable[[str], None]) -> None:
    client_of(workspace).search_experiments()
    start.wait(60)
    try:
        promote(workspace, reference, "staging", settings=FREE)
        answer("won")
    except ValueError as error:
        answer(str(error))


def test_of_two_at_once_one_wins(tracked: Workspace) -> None:
    candidate(tracked, "run-1")
    candidate(tracked, "run-2")
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(2), context.Queue()
    rivals = [
        context.Process(target=_compete, args=(tracked, f"r1kit-candidate/{n}", start, answers.put)) for n in (1, 2)
    ]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(90)
    said = sorted(answers.get(timeout=1) for _ in rivals)
    assert said[1] == "won" and ("under way" in said[0] or "changed hands" in said[0]), said
    assert len(history(open_ledger(tracked).entries(), "r1kit", "staging")) == 1


def test_a_rival_without_our_lock_is_noticed(tracked: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    candidate(tracked)
    original = Ledger.append

    def rival_first(ledger: Ledger, entry: Any, **options: Any) -> Any:
        monkeypatch.setattr(Ledger, "append", original)
        original(ledger, entry)
        return original(ledger, entry, **options)

    monkeypatch.setattr(Ledger, "append", rival_first)
    with pytest.raises(ValueError, match="another promotion to staging is under way"):
        promote(tracked, "r1", "staging", settings=FREE)
