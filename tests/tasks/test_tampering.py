"""Whatever single thing is altered in a finished history, the audit finds it and names it; untouched, it is silent."""

import re
from collections.abc import Iterator

import pytest

from tasks.audit import audit, audit_everything
from tests.tasks.alterations import Alteration, History, in_files_and_ledger
from tests.tasks.alterations_beside import in_other_stores
from tests.tasks.finished import make
from tests.tasks.forgeries import forged

GROUPS = ("bits", "files", "ledger", "fields", "registry", "runs", "pins", "people", "forged")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    """Made once, altered and restored by every test."""
    directory = tmp_path_factory.mktemp("history")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("R1_HOME", str(directory / "whole" / "r1"))
        patch.setenv("R1_SUBMITTER", "submitter@example.org")
        made = make(directory / "whole")
        yield History(made, directory / "snapshot")


@pytest.fixture(scope="module")
def alterations(history: History) -> list[Alteration]:
    return [*in_files_and_ledger(history), *in_other_stores(history), *forged(history)]


def test_an_untouched_history_gives_no_alarm(history: History) -> None:
    report = audit_everything(history.workspace, root=history.root)
    assert report.problems == () and report.repaired == () and report.notes == ()
    assert report.ledger_entries == len(history.entries) and report.pins == 8 and report.runs == 2
    assert report.signatures == report.versions == 5 and report.approvals == 3
    for model in ("production", "staging", "r1", "r1kit-candidate/1"):
        assert audit(history.workspace, model).problems == ()


def test_there_are_enough_of_them(alterations: list[Alteration]) -> None:
    assert len(alterations) >= 200 and {alteration.group for alteration in alterations} == set(GROUPS)
    names = [alteration.name for alteration in alterations]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("group", GROUPS)
def test_every_alteration_is_found_and_named(history: History, alterations: list[Alteration], group: str) -> None:
    missed = []
    for alteration in (a for a in alterations if a.group == group):
        alteration.act()
        try:
            problems = audit_everything(history.workspace, root=history.root).problems
        finally:
            history.restore()
        if not any(re.search(alteration.said, problem) for problem in problems):
            missed.append(f"{alteration.name}: wanted {alteration.said!r}, was told {problems}")
    assert not missed, f"{len(missed)} missed:\n" + "\n".join(missed)
    assert audit_everything(history.workspace, root=history.root).problems == ()
