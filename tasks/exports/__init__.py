"""Exports: how a model was made, in the formats that others read. One file a format, all from one description."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.artifacts import digest_bytes
from tasks.exports import card, cyclonedx, dossier, openlineage, prov, slsa
from tasks.exports.making import Making
from tasks.notes import write_atomically

ALL = "all"


@dataclass(frozen=True)
class Format:
    """One way to export."""

    render: Callable[[Making], str]
    file: str
    """What it is called in a directory of all."""
    what: str


FORMATS: dict[str, Format] = {
    "openlineage": Format(openlineage.render, "openlineage.jsonl", "OpenLineage run events, one a line"),
    "slsa": Format(slsa.render, "provenance.dsse.json", "SLSA provenance v1, in-toto, signed (DSSE)"),
    "cyclonedx": Format(cyclonedx.render, "bom.cdx.json", "CycloneDX 1.6 bill of materials with model card"),
    "card": Format(card.render, "README.md", "Hugging Face model card"),
    "prov": Format(prov.render, "prov.json", "W3C PROV-JSON"),
    "dossier": Format(dossier.render, "dossier.html", "technical documentation by Annex IV of the EU AI Act, HTML"),
}


@dataclass(frozen=True)
class Written:
    """An export on the disk, or why there is none."""

    format: str
    path: Path
    digest: str
    """sha256 of the file's bytes; empty where it was not written."""
    refused: str = ""


def check_format(name: str) -> None:
    """Raise ValueError for a format that does not exist."""
    if name not in (*FORMATS, ALL):
        raise ValueError(f"there is no export format {name!r}; there are {', '.join(FORMATS)}, and {ALL}")


def check_place(name: str, out: Path) -> None:
    """Raise ValueError where exports cannot be put."""
    if name == ALL and out.exists() and not out.is_dir():
        raise ValueError(f"--format {ALL} writes into a directory, but {out} is a file; name another place")
    holder = next(parent for parent in (out, *out.absolute().parents) if parent.exists())
    if holder != out and not holder.is_dir():
        raise ValueError(f"{out} cannot be written, because {holder} is a file; name another place")


def write_exports(making: Making, name: str, out: Path) -> list[Written]:
    """Write one export, or all of them into a directory; each file appears whole or not at all.

    Of `all`, one that must be refused does not keep back the others.
    Raises ValueError where the one that is asked for cannot be made.
    """
    check_format(name)
    check_place(name, out)
    wanted: Sequence[str] = tuple(FORMATS) if name == ALL else (name,)
    written = []
    for each in wanted:
        path = out / FORMATS[each].file if name == ALL or out.is_dir() else out
        try:
            text = FORMATS[each].render(making)
        except ValueError as error:
            if name != ALL:
                raise
            written.append(Written(each, path, "", str(error)))
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
        written.append(Written(each, path, digest_bytes(text.encode())))
    return written
