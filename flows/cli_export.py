"""`r1 export`: how a model was made, in the formats that other tools read."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli_models import Approvers, Model
from flows.console import PIPELINE, AsJson, ConfigFile, Profile, err, family_and_profile, out, print_json
from tasks.workspace import find_workspace


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    model: Model,
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="openlineage, slsa, cyclonedx, card, prov, dossier, or all.")
    ],
    place: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to; for `all` a directory.")],
    profile: Profile = None,
    config: ConfigFile = PIPELINE,
    approvers: Approvers = None,
    as_json: AsJson = False,
) -> None:
    """Write how a model was made as other tools read it. Works offline; the same ledger gives the same bytes.

    All bytes are hashed again. What is missing or altered is said in the export and here, and the exit code is 1.

    Examples:

        r1 export production --format cyclonedx --out bom.cdx.json

        r1 export r1 --format all --out exports

        r1 export r1 --format dossier --out dossier.html --json
    """
    from tasks.exports import check_format, check_place, write_exports
    from tasks.exports.making import describe_making

    check_format(format_)
    check_place(format_, place)
    workspace = find_workspace()
    family, _ = family_and_profile(workspace, config, profile)
    making = describe_making(workspace, model, name=family, approvers=approvers)
    written = write_exports(making, format_, place)
    refused = [each for each in written if each.refused]
    if as_json:
        print_json({
            "model": making.title,
            "digest": making.report.digest,
            "written": [
                {"format": each.format, "path": str(each.path), "digest": each.digest}
                for each in written
                if not each.refused
            ],
            "refused": {each.format: each.refused for each in refused},
            "problems": list(making.problems),
            "gaps": list(making.gaps),
        })  # fmt: skip
    else:
        for each in written:
            if not each.refused:
                out.print(f"{each.format:<12} {escape(str(each.path))}  [dim]{each.digest}[/]")
        for gap in making.gaps:
            err.print(f"[yellow]not known:[/] {escape(gap)}")
        for problem in making.problems:
            err.print(f"[bold red]problem, said in every export:[/] {escape(problem)}")
        for each in refused:
            err.print(f"[bold red]{each.format} was not written:[/] {escape(each.refused)}")
    if making.problems or refused:
        raise typer.Exit(1)
