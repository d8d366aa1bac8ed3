"""`r1 trace`: where a row came from and what became of it."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.tree import Tree

from flows.console import AsJson, out, print_json
from tasks.workspace import find_workspace

if TYPE_CHECKING:
    from tasks.trace import Sample, Trace

_NUM_SHOWN = 8
_SHOWN_CHARS = 160


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(trace)


def trace(
    row: Annotated[str, typer.Argument(metavar="ROW", help="Its id, as in tinyworld/problems/17 or reject/…@…/3.")],
    run: Annotated[str, typer.Option("--run", help="In this run; else in the latest one that knows the row.")] = "",
    as_json: AsJson = False,
) -> None:
    """Follow one row both ways, from the ledger and the stores alone.

    Back: its file, its source with address and checksum, the question it answers, the checkpoint and the number of the
    sample, the verdict. Forward: every sample drawn for it, kept or dropped and why, the rows made from it, and the
    models that learned from them. A row that was set aside is told with its reason.

    Examples:

        r1 trace tinyworld/problems/leg_counting-17

        r1 trace gsm8k_train/4711 --json
    """
    from tasks.trace import trace as follow

    found = follow(find_workspace(), row, run)
    print_json(found.model_dump(mode="json")) if as_json else out.print(_tree(found))


def _tree(found: "Trace") -> Tree:
    tree = Tree(f"[bold]{escape(found.row)}[/] [dim]in run {escape(found.run)}[/]")
    _add_row(tree, found)
    if found.samples:
        kept = sum(sample.kept for sample in found.samples)
        branch = tree.add(f"[bold]drawn for it[/]: {len(found.samples)} samples, {kept} kept")
        _add_some(branch, [_sample(sample) for sample in found.samples])
    if found.children:
        _add_some(tree.add(f"[bold]rows made from it[/]: {len(found.children)}"), list(map(escape, found.children)))
    if found.learners:
        branch = tree.add("[bold]models that learned from it, or from what was drawn for it[/]")
        for learner in found.learners:
            branch.add(f"[cyan]{escape(learner.model)}[/] [dim]{escape(learner.way)}[/]")
    for sentence in found.missing:
        tree.add(f"[yellow]not searched: {escape(sentence)}[/]")
    return tree


def _add_row(tree: Tree, found: "Trace") -> None:
    """What is known of a row itself, and of the rows behind it."""
    for place in found.places:
        branch = tree.add(f"row {place.number} of [cyan]{escape(place.role)}[/] [dim]{place.digest[:19]}…[/]")
        for name in ("prompt", "response", "chosen", "rejected", "answer", "licence"):
            if place.values.get(name):
                branch.add(f"{name} [dim]{escape(_short(str(place.values[name])))}[/]")
    for aside in found.set_aside:
        at = f"{escape(aside.file)}, row {aside.number}"
        said = f"{escape(aside.rule)}: {escape(aside.reason)}"
        tree.add(f"[yellow]set aside[/] ({at}, {escape(aside.field)}): {said} [dim]{escape(_short(aside.value))}[/]")
    if found.origin:
        files = [f"{file['url']} [dim]sha256:{file['sha256'][:12]}…[/]" for file in found.origin.get("files", ())]
        made = f"made by seed {found.origin['seed']}" if "seed" in found.origin else ""
        branch = tree.add(f"from [cyan]{escape(str(found.origin['source']))}[/] {made}")
        _add_some(branch, files)
    if found.sample:
        tree.add(_sample(found.sample))
    for parent in found.parents:
        _add_row(tree.add(f"made from [bold]{escape(parent.row)}[/]"), parent)


def _sample(sample: "Sample") -> str:
    mark = "[green]kept[/]" if sample.kept else "[yellow]dropped[/]"
    drawn = f"sample {sample.sample} of {escape(sample.model or 'a model')} [dim]{sample.checkpoint[:19]}…[/]"
    return f"{mark} {drawn}: {escape(sample.verifier)} {sample.score:g}, {escape(_short(sample.reason))}"


def _add_some(branch: Tree, lines: list[str]) -> None:
    for line in lines[:_NUM_SHOWN]:
        branch.add(line)
    if len(lines) > _NUM_SHOWN:
        branch.add(f"[dim]… and {len(lines) - _NUM_SHOWN} more; --json has all[/]")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"
