"""Commands about environments: approve, pending, promote, rollback, gc."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli_models import Approvers, Model
from flows.console import PIPELINE, AsJson, ConfigFile, Overrides, Profile, err, family_and_profile, out, print_json
from tasks.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from r1kit.promotion import OperationsConfig
    from tasks.lineage import Environment

To = Annotated[str, typer.Option("--to", help="staging or production.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(approve)
    app.command()(pending)
    app.command()(promote)
    app.command()(rollback)
    app.command()(gc)


def approve(
    model: Model,
    to: To,
    approver: Annotated[str, typer.Option("--as", metavar="WHO", help="You, as the approvers' file names you.")],
    key: Annotated[Path, typer.Option("--key", help="Your own SSH key (Ed25519).")] = Path("~/.ssh/id_ed25519"),
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    approvers: Approvers = None,
    as_json: AsJson = False,
) -> None:
    """Sign with your own SSH key that a model may enter an environment. Nobody can approve what they submitted.

    It needs the ledger and your key, nothing else: any machine that reaches the ledger will do.

    Example:

        r1 approve r1 --to staging --as alice@example.org --key ~/.ssh/id_ed25519
    """
    from tasks.approvals import approve as sign

    workspace = find_workspace()
    recorded = sign(
        workspace,
        model,
        _environment(to),
        approver=approver,
        key=key.expanduser(),
        approvers=approvers,
        name=_family(workspace, model, config, profile),
    )
    if as_json:
        print_json({"sequence": recorded.sequence, "digest": recorded.digest, **recorded.entry.facts})
    else:
        out.print(f"{approver} approved {model} for {to} (ledger entry {recorded.sequence})")


def pending(
    who: Annotated[str, typer.Option("--as", metavar="WHO", help="Only what this person may still approve.")] = "",
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    set_: Overrides = None,
    approvers: Approvers = None,
    as_json: AsJson = False,
) -> None:
    """List the models that wait for approvals: for which environment, by whom it has them, how many it still needs.

    Example:

        r1 pending --as alice@example.org
    """
    from tasks.approvals import pending as waiting

    workspace = find_workspace()
    settings = _operations(workspace, config, profile, set_).promotion
    rows = [dataclasses.asdict(row) for row in waiting(workspace, settings, approvers=approvers, who=who)]
    if as_json:
        print_json(rows)
        return
    if not rows:
        out.print("nothing waits for an approval")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("model", "to", "submitted by", "approved by", "still needed"):
        table.add_column(title)
    for row in rows:
        names = [", ".join(row[field]) or "nobody" for field in ("submitters", "approvers")]
        table.add_row(escape(row["model"]), row["to"], *map(escape, names), str(row["needed"]))
    out.print(table)


def promote(
    model: Model,
    to: To,
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    set_: Overrides = None,
    approvers: Approvers = None,
    check: Annotated[bool, typer.Option("--check", help="Only tell which gates would let it through.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let a model into staging or production, if its evidence, its evaluation and the approvals allow it.

    Examples:

        r1 promote r1 --to staging

        r1 promote staging --to production

        r1 promote r1 --to staging --check
    """
    workspace, environment = find_workspace(), _environment(to)
    settings = _operations(workspace, config, profile, set_).promotion
    family = _family(workspace, model, config, profile)
    if check:
        from tasks.promotion import check as look

        gates = [
            dataclasses.asdict(gate)
            for gate in look(workspace, model, environment, settings=settings, name=family, approvers=approvers)
        ]
        print_json(gates) if as_json else _print_gates(gates)
        raise typer.Exit(0 if all(gate["passed"] for gate in gates) else 1)
    from flows.promote import promote_model

    done = promote_model(
        model=model, to=to, family=family, settings=settings.model_dump(mode="json"),
        approvers=str(approvers) if approvers else None,
    )  # fmt: skip
    if as_json:
        print_json(done)
        return
    _print_gates(done["gates"])
    out.print(f"{to} holds {done['name']}/{done['version']} ({done['model']})")


def rollback(
    environment: Annotated[str, typer.Argument(help="staging or production.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the ledger.")] = "",
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    as_json: AsJson = False,
) -> None:
    """Give an environment back to the model that held it before.

    Example:

        r1 rollback production --reason "answers got longer"
    """
    from flows.promote import roll_back

    family = _family(find_workspace(), _environment(environment), config, profile)
    done = roll_back(environment=environment, family=family, reason=reason)
    if as_json:
        print_json(done)
    else:
        out.print(f"{environment} holds {done['name']}/{done['version']} ({done['model']}) again")


def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without this it is only shown.")] = False,
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what no environment, no rollback and none of the latest runs needs; with --yes delete it.

    The ledger has every deletion before a byte goes. Metrics, evidence and signatures stay.

    Examples:

        r1 gc

        r1 gc --yes --set gc.keep_runs=2
    """
    from tasks import gc as collector

    workspace = find_workspace()
    settings = _operations(workspace, config, profile, set_).gc
    freed = collector.collect(workspace, settings) if yes else collector.Freed((), 0)
    items = freed.items if yes else collector.plan(workspace, settings)
    total = sum(item.size_bytes for item in items)
    if as_json:
        document = {"items": collector.as_rows(items), "size_bytes": total, "deleted": yes, "sequence": freed.sequence}
        print_json(document)
        return
    if not items:
        out.print("nothing to delete: all that is here is needed")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("MB", justify="right")
    table.add_column("what")
    table.add_column("why")
    for item in items:
        table.add_row(f"{item.size_bytes / 1e6:.1f}", escape(item.what), escape(item.why))
    out.print(table)
    if yes:
        out.print(f"\ndeleted {total / 1e6:.1f} MB (ledger entry {freed.sequence})")
    else:
        out.print(f"\n{total / 1e6:.1f} MB; `r1 gc --yes` deletes it")


def _environment(name: str) -> "Environment":
    from tasks.lineage import ENVIRONMENTS

    if name not in ENVIRONMENTS[1:]:
        raise ValueError(f"{name!r} is not an environment; there are {' and '.join(ENVIRONMENTS[1:])}")
    return cast("Environment", name)


def _operations(
    workspace: Workspace, config: Path, profile: str | None, overrides: list[str] | None
) -> "OperationsConfig":
    from r1kit.promotion import load_operations

    return load_operations(config, family_and_profile(workspace, config, profile)[1], overrides or ())


def _family(workspace: Workspace, reference: str, config: Path, profile: str | None) -> str:
    """The family that is meant: the profile's, the latest run's; on a machine without runs the ledger's only one.

    Raises ValueError where a reference could mean a model of several families.
    """
    from tasks.ledger import open_ledger
    from tasks.lineage import families, family_of

    family = family_and_profile(workspace, config, profile)[0]
    if family_of(reference, "") or profile is not None or (workspace.runs_dir / "latest").exists():
        return family
    known = families(open_ledger(workspace).entries())
    if len(known) > 1:
        raise ValueError(
            f"{reference!r} is ambiguous here: the ledger has models of {', '.join(known)}; "
            f"name one as `{known[0]}-candidate/1`, or its profile with --profile"
        )
    return known[0] if known else family


def _print_gates(gates: Sequence[dict[str, Any]]) -> None:
    for gate in gates:
        mark = "[green]open[/]  " if gate["passed"] else "[bold red]closed[/]"
        wanted = f", wanted {gate['limit']}" if gate["limit"] else ""
        err.print(f"{mark} {gate['name']}: {escape(gate['figure'] + wanted)}")
