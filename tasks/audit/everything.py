"""Has any byte been altered? The whole history, every store beside every other, each difference named."""

from pathlib import Path

from tasks.audit.entries import entry_faults
from tasks.audit.people import approvals, list_difference
from tasks.audit.records import HistoryReport
from tasks.audit.registry import reconcile, run_faults
from tasks.audit.runs import look_at_runs
from tasks.audit.stores import look_at_artifacts, look_at_pins, look_at_signatures
from tasks.ledger import History, open_ledger
from tasks.lineage import families, version_entries
from tasks.vault import vault_faults
from tasks.workspace import REPOSITORY, Workspace


def audit_everything(workspace: Workspace, *, approvers: Path | None = None, root: Path = REPOSITORY) -> HistoryReport:
    """Look into every entry, artifact, signature, version, tag, alias, tracked run, pin and run folder.

    Args:
        approvers: The list of approvers, where it is not the workspace's or the repository's.
        root: Where dvc.lock and the prepared data lie.
    """
    ledger = open_ledger(workspace)
    broken = list(ledger.verify())
    problems = list(broken)
    try:
        entries = History.of(list(ledger.entries()))  # each is read where it lies: the kept index is no evidence
    except ValueError as error:  # with an entry that cannot be read, nothing else can be compared
        return _unreadable([*problems, str(error)])
    head = ledger.head()
    problems += entry_faults(workspace, entries, approvers)
    artifacts = look_at_artifacts(workspace, entries, root)
    signatures, pins = look_at_signatures(workspace, entries), look_at_pins(entries, root)
    repaired: list[str] = []
    for family in families(entries):
        put_right, differences = reconcile(workspace, family, entries, whole=not broken)
        repaired, problems = repaired + put_right, problems + differences
    tracked_problems, tracked = run_faults(workspace, ledger.entries()) if entries else ([], 0)
    run_problems, run_notes, runs = look_at_runs(workspace, ledger.entries())
    kept = list(vault_faults(workspace, entries)) if version_entries(entries) else []
    listed = list_difference(workspace, entries, approvers)
    problems += artifacts.problems + kept + signatures.problems + pins.problems + tracked_problems + run_problems
    return HistoryReport(
        ledger_entries=len(entries),
        ledger_head=head.digest,
        artifacts=artifacts.count,
        artifact_bytes=artifacts.size_bytes,
        signatures=signatures.count,
        approvals=len(approvals(entries)),
        versions=len(version_entries(entries)),
        tracked_runs=tracked,
        runs=runs,
        pins=pins.count,
        notes=tuple(dict.fromkeys([*artifacts.notes, *pins.notes, *run_notes])),
        repaired=tuple(repaired),
        problems=tuple(dict.fromkeys([*problems, *([listed] if listed else [])])),
    )


def _unreadable(problems: list[str]) -> HistoryReport:
    return HistoryReport(
        ledger_entries=0, ledger_head="", artifacts=0, artifact_bytes=0, signatures=0, approvals=0, versions=0,
        tracked_runs=0, runs=0, pins=0, notes=(), repaired=(), problems=tuple(dict.fromkeys(problems)),
    )  # fmt: skip
