"""The technical-documentation dossier: one HTML file with the sections of Annex IV of the EU AI Act.

It asks nothing of any network and runs nothing. What evidence can say is filled in, what only people can say is marked.
"""

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.exports.annex import SECTIONS, Point
from tasks.exports.blocks import Block, Table
from tasks.exports.making import Making
from tasks.report import words

_HERE = Path(__file__).parent
_REPORT = _HERE.parent / "report"
FILLED, PARTLY, OPEN = "filled from evidence", "partly filled from evidence", "to be written by a person"


@dataclass(frozen=True)
class Answer:
    """A point with what is known of it."""

    point: Point
    blocks: tuple[Block, ...]

    @property
    def state(self) -> str:
        """How far evidence answers it."""
        if not self.blocks:
            return OPEN
        return PARTLY if self.point.missing else FILLED

    @property
    def anchor(self) -> str:
        """Its place in the page."""
        return "point-" + "".join(c if c.isalnum() else "-" for c in self.point.number).strip("-")


def render(making: Making) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader([_HERE, _REPORT]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = words.visible
    environment.tests["table"] = lambda block: isinstance(block, Table)
    sections = [
        (section, [Answer(point, tuple(point.known(making))) for point in section.points]) for section in SECTIONS
    ]
    states = [answer.state for _, answers in sections for answer in answers]
    page = environment.get_template("dossier.html").render(
        making=making,
        report=making.report,
        sections=sections,
        counts={s: states.count(s) for s in (FILLED, PARTLY, OPEN)},
    )
    return page.encode("utf-8", "replace").decode()
