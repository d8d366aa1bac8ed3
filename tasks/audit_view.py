"""An audit as a tree for people."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from tasks.audit import AuditReport, DataRecord, StepRecord


def render(report: AuditReport) -> Tree:
    """The whole report as a tree; print it with a rich console."""
    verdict = "[bold green]sound[/]" if report.sound else f"[bold red]{len(report.problems)} problems[/]"
    title = f"{report.name}/{report.version} ({report.model})" if report.name else f"{report.model} (not registered)"
    tree = Tree(f"[bold]{escape(title)}[/]  {verdict}")
    _add_identity(tree, report)
    for label, lines in (
        ("[bold red]problems[/]", [f"[red]{escape(problem)}[/]" for problem in report.problems]),
        ("repaired by this audit", [escape(line) for line in report.repaired]),
    ):
        if lines:
            _add_lines(tree, label, lines)
    _add_evaluation(tree, report)
    data = tree.add(f"[bold]data[/] · {len(report.data)} sets trained on")
    for record in report.data:
        _add_data(data, record)
    lineage = tree.add(f"[bold]lineage[/] · {len(report.steps)} steps, base first")
    for step in report.steps:
        _add_step(lineage, step)
    _add_approvals(tree, report)
    events = [
        f"{_day(p.time)}  {escape(p.what)}, by {escape(p.who)} [dim](entry {p.sequence})[/]" for p in report.places
    ]
    _add_lines(tree, "[bold]history[/]", events or ["never registered"])
    tree.add(f"[bold]ledger[/] · {report.ledger_entries} entries, head [dim]{report.ledger_head}[/]")
    return tree


def _add_identity(tree: Tree, report: AuditReport) -> None:
    tree.add(f"digest [dim]{report.digest}[/] · {report.size_bytes / 1e6:.1f} MB")
    tree.add(f"bytes [dim]{escape(report.uri)}[/]")
    tree.add(f"signature {_mark(report.signature == 'verified')} {escape(report.signature)}")
    people = ", ".join(report.submitters) or "nobody"
    held = f" · holds {', '.join(report.holds)}" if report.holds else ""
    tree.add(f"run {escape(report.run)} · submitted by {escape(people)}{held}")


def _add_evaluation(tree: Tree, report: AuditReport) -> None:
    lines = [
        f"{escape(name)}: {figures['score']:.3f} (n = {figures['n']:.0f})"
        for name, figures in report.evaluation.items()
    ]
    _add_lines(tree, "[bold]pass@1[/]", lines or ["never evaluated, or its file is gone"])


def _add_data(parent: Tree, record: DataRecord) -> None:
    passed = record.validated is not None
    verdict = f"validated {_day(record.validated)}" if record.validated else "[red]never validated[/]"
    branch = parent.add(f"{_mark(passed)} [cyan]{escape(record.kind)}[/] [dim]{record.digest[:19]}…[/] · {verdict}")
    if record.verdict:
        checks, failed = len(record.verdict.get("checks", ())), record.verdict.get("failed_checks", 0)
        branch.add(f"{record.verdict.get('rows', 0):,} rows, {checks} checks, {failed} failed")
    for source in record.sources:
        lines = branch.add(f"from {escape(_source_line(source))}")
        for file in source.get("files") or ():
            lines.add(f"[dim]{escape(file['url'])} sha256:{file['sha256'][:12]}…[/]")
    if record.fault:
        branch.add(f"[red]{escape(record.fault)}[/]")


def _source_line(source: Mapping[str, Any]) -> str:
    """`gsm8k_train · 7,426 of 7,473 rows · 47 contaminated · MIT`."""
    facts = [str(source.get("source") or source.get("name"))]
    if "rows_kept" in source:
        facts.append(f"{source['rows_kept']:,} of {source['rows_read']:,} rows")
    facts += [
        f"{source[name]:,} {name}"
        for name in ("quarantined", "duplicates", "contaminated", "unlicensed")
        if source.get(name)
    ]
    facts += [f"seed {source['seed']}" if source.get("seed") is not None else "", source.get("licence") or ""]
    return " · ".join(filter(None, facts))


def _add_step(parent: Tree, step: StepRecord) -> None:
    branch = parent.add(
        f"{_mark(not step.faults)} [cyan]{escape(step.title)}[/] · {_day(step.time)} "
        f"· {step.seconds:.0f} s · seed {step.seed}"
    )
    branch.add(
        f"code [dim]{step.code_digest[:19]}…[/] · configuration [dim]{step.config_digest[:19]}…[/]{_model_source(step)}"
    )
    commit = step.environment.get("commit", "")
    where = f"git {commit[:12]}{'+changes' if commit.endswith('+changes') else ''} · " if commit else ""
    branch.add(
        f"{where}lock [dim]{step.environment.get('lock_digest', '')[:19]}…[/] · mlflow run [dim]{step.mlflow_run_id}[/]"
    )
    for arrow, edges in (("←", step.inputs), ("→", step.outputs)):
        for role, digest in edges.items():
            branch.add(f"{arrow} {escape(role)} [dim]{digest[:19]}…[/]")
    if not step.exact:
        branch.add("[yellow]not claimed to be bit-exact[/]: it was resumed in other surroundings")
    for line in step.said if not step.exact else ():
        branch.add(f"said: [dim]{escape(line)}[/]")
    for reason in step.faults:
        branch.add(f"[red]{escape(reason)}[/]")


def _model_source(step: StepRecord) -> str:
    """Where a base model comes from."""
    model = step.config.get("model")
    source = model.get("source") if isinstance(model, dict) else None
    return f" · from {escape(str(source))}" if source else ""


def _add_approvals(tree: Tree, report: AuditReport) -> None:
    lines = []
    for approval in report.approvals:
        fault = f" [red]does not count: {escape(approval.fault)}[/]" if approval.fault else " signature verified"
        who = f"{escape(approval.approver)} for {approval.environment}, {_day(approval.time)}"
        lines.append(f"{_mark(approval.fault is None)} {who}, [dim]{escape(approval.key)}[/]{fault}")
    _add_lines(tree, "[bold]approvals[/]", lines or ["none"])


def _add_lines(tree: Tree, label: str, lines: list[str]) -> None:
    branch = tree.add(label)
    for line in lines:
        branch.add(line)


def _mark(good: bool) -> str:
    return "[green]✓[/]" if good else "[red]✗[/]"


def _day(time: str) -> str:
    """`2026-05-01 12:30` of an ISO time."""
    return time[:16].replace("T", " ")
