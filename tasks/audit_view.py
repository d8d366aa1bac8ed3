"""An audit as a tree for people."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from tasks.audit.records import (
    AuditReport,
    DataRecord,
    HistoryReport,
    RebuildReport,
    StepRecord,
    TouchedReport,
)


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
    if {"trained", "validated"} & set(report.asked):
        data = tree.add(f"[bold]data[/] · {len(report.data)} sets trained on")
        for record in report.data:
            _add_data(data, record, rules="validated" in report.asked)
    if {"trained", "altered"} & set(report.asked):
        lineage = tree.add(f"[bold]lineage[/] · {len(report.steps)} steps, base first")
        for step in report.steps:
            _add_step(lineage, step)
    if "approved" in report.asked:
        _add_approvals(tree, report)
        _add_places(tree, report)
    if "rebuildable" in report.asked:
        _add_rebuildable(tree, report)
    tree.add(f"[bold]ledger[/] · {report.ledger_entries} entries, head [dim]{report.ledger_head}[/]")
    return tree


def _add_identity(tree: Tree, report: AuditReport) -> None:
    tree.add(f"digest [dim]{report.digest}[/] · {report.size_bytes / 1e6:.1f} MB")
    tree.add(f"bytes [dim]{escape(report.uri)}[/]")
    if "altered" in report.asked:
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


def _add_data(parent: Tree, record: DataRecord, *, rules: bool) -> None:
    passed = record.verdict_fault is None
    verdict = f"validated {_day(record.validated)}" if record.validated else "[red]never validated[/]"
    branch = parent.add(f"{_mark(passed)} [cyan]{escape(record.kind)}[/] [dim]{record.digest[:19]}…[/] · {verdict}")
    lies = f"{record.rows:,} rows" if record.rows is not None else "rows"
    branch.add(f"{lies} at [dim]{escape(record.uri)}[/]")
    if record.validated:
        failed = record.verdict.get("failed_checks", 0)
        same = "these very bytes" if passed else f"[red]{escape(str(record.verdict_fault))}[/]"
        branch.add(
            f"ledger entry {record.validation_sequence} let through {same}: {len(record.rules)} checks, {failed} failed"
        )
    if rules and record.rules:
        checked = branch.add("rules")
        for rule in record.rules:
            checked.add(escape(rule))
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
    if machine := _machine(step):
        branch.add(escape(machine))
    rows = {record.role: f" · {record.rows:,} rows" for record in step.rows if record.rows is not None}
    for arrow, edges in (("←", step.inputs), ("→", step.outputs)):
        for role, digest in edges.items():
            branch.add(f"{arrow} {escape(role)} [dim]{digest[:19]}…[/]{rows.get(role, '') if arrow == '←' else ''}")
    if not step.exact:
        branch.add("[yellow]not claimed to be bit-exact[/]: it was resumed in other surroundings")
    for line in step.said if not step.exact else ():
        branch.add(f"said: [dim]{escape(line)}[/]")
    for reason in step.faults:
        branch.add(f"[red]{escape(reason)}[/]")


def _machine(step: StepRecord) -> str:
    """`Xeon, 2 cores, 1 thread, NVIDIA H100, Linux x86_64, Python 3.11.9`; empty where nothing was noted."""
    known = step.environment
    facts = [
        known.get("processor", ""),
        f"{known['cores']} cores" if known.get("cores") else "",
        f"{step.threads} threads" if step.threads else "",
        f"{step.processes} processes" if step.processes > 1 else "",
        known.get("accelerators", ""),
        known.get("platform", ""),
        f"Python {known['python']}" if known.get("python") else "",
    ]
    return ", ".join(filter(None, facts))


def _model_source(step: StepRecord) -> str:
    """Where a base model comes from."""
    model = step.config.get("model")
    source = model.get("source") if isinstance(model, dict) else None
    return f" · from {escape(str(source))}" if source else ""


def _add_approvals(tree: Tree, report: AuditReport) -> None:
    branch = tree.add("[bold]approvals[/]" if report.approvals else "[bold]approvals[/] · none")
    for approval in report.approvals:
        who = f"{escape(approval.approver)} for {approval.environment}, {_day(approval.time)}"
        held = " signature verified by the keys of then"
        fault = f" [red]does not hold: {escape(approval.fault)}[/]" if approval.fault else held
        line = branch.add(f"{_mark(approval.fault is None)} {who}, [dim]{escape(approval.key)}[/]{fault}")
        line.add(f"on evidence [dim]{approval.evidence_digest[:19]}…[/] (ledger entry {approval.sequence})")
        if approval.since:
            line.add(f"[yellow]would not count today[/]: {escape(approval.since)}")


def _add_places(tree: Tree, report: AuditReport) -> None:
    branch = tree.add("[bold]history[/]" if report.places else "[bold]history[/] · never registered")
    for place in report.places:
        who = f", by {escape(place.who)} [dim](entry {place.sequence})[/]"
        event = branch.add(f"{_day(place.time)}  {escape(place.what)}{who}")
        for gate in place.gates:
            event.add(f"[dim]{escape(gate)}[/]")


def _add_rebuildable(tree: Tree, report: AuditReport) -> None:
    branch = tree.add("[bold]can it be rebuilt[/]")
    for step in report.rebuildable:
        line = branch.add(f"{_mark(not step.missing)} {escape(step.title)}")
        for text in step.missing:
            line.add(f"[red]{escape(text)}[/]")
        for text in step.differs:
            line.add(f"[yellow]other bits may come of it[/]: {escape(text)}")


def render_history(report: HistoryReport) -> Tree:
    """The whole history's audit."""
    verdict = "[bold green]nothing was altered[/]" if report.sound else f"[bold red]{len(report.problems)} problems[/]"
    tree = Tree(f"[bold]history[/]  {verdict}")
    for label, lines in (
        ("[bold red]problems[/]", [f"[red]{escape(problem)}[/]" for problem in report.problems]),
        ("repaired by this audit", [escape(line) for line in report.repaired]),
        ("worth knowing", [escape(line) for line in report.notes]),
    ):
        if lines:
            _add_lines(tree, label, lines)
    tree.add(f"{report.ledger_entries} ledger entries, head [dim]{report.ledger_head}[/]")
    tree.add(f"{report.artifacts} artifacts hashed, {report.artifact_bytes / 1e6:,.1f} MB")
    tree.add(f"{report.signatures} signatures and {report.approvals} approvals verified")
    tree.add(f"{report.versions} versions and {report.tracked_runs} tracked runs compared with MLflow")
    tree.add(f"{report.pins} pins compared with DVC · {report.runs} runs with their summaries")
    return tree


def render_touched(report: TouchedReport) -> Tree:
    """What something touched, with the path to each model."""
    tree = Tree(f"[bold]{escape(report.what)}[/]  touches {len(report.models)} models")
    _add_lines(tree, "found as", [escape(found) for found in report.found])
    for model in report.models:
        held = f" · [green]holds {', '.join(model.holds)}[/]" if model.holds else ""
        branch = tree.add(f"[cyan]{escape(model.model)}[/] [dim]{model.digest[:19]}…[/]{held}")
        branch.add(escape(" ▸ ".join(model.path)))
    return tree


def render_rebuild(report: RebuildReport) -> Tree:
    """What came of running a recipe again."""
    verdict = "[bold green]the same bits[/]" if report.sound else "[bold red]not the same bits[/]"
    tree = Tree(f"[bold]{escape(report.reference)}[/] rebuilt  {verdict}")
    for step in report.steps:
        line = tree.add(f"{_mark(bool(step.identical))} {escape(step.title)} · {step.seconds:.0f} s")
        if step.error:
            line.add(f"[red]could not run: {escape(step.error)}[/]")
        for role, pair in step.outputs.items():
            same = pair["recorded"] == pair["rebuilt"]
            found = "the same" if same else f"[red]{pair['rebuilt'][:19] or 'nothing'}…[/]"
            line.add(f"{escape(role)} [dim]{pair['recorded'][:19]}…[/] rebuilt as {found}")
        for text in step.differs:
            line.add(f"[yellow]no longer as then[/]: {escape(text)}")
    return tree


def _add_lines(tree: Tree, label: str, lines: list[str]) -> None:
    branch = tree.add(label)
    for line in lines:
        branch.add(line)


def _mark(good: bool) -> str:
    return "[green]✓[/]" if good else "[red]✗[/]"


def _day(time: str) -> str:
    """`2026-05-01 12:30` of an ISO time."""
    return time[:16].replace("T", " ")
