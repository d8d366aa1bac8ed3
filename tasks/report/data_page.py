"""A page on one data set: what was checked, what fell, how its rows are distributed. One file, offline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.report import words
from tasks.report.charts import bar_chart

_TITLES = {"tokens": "Tokens of a row", "languages": "Languages", "sources": "Sources"}
_MOST_BARS = 30


def write_data_page(checked: Mapping[str, Any], target: Path) -> Path:
    """Write the page on what `tasks.checkup.check`, or a file's part of the validation, says of a data set."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    charts = [
        (title, bar_chart(dict(list(checked["distributions"][name].items())[:_MOST_BARS]), title))
        for name, title in _TITLES.items()
        if checked.get("distributions", {}).get(name)
    ]
    rows = [
        {**check, "examples": [{**e, "value": words.visible(str(e["value"]), 300)} for e in check["examples"]]}
        for check in checked["checks"]
    ]
    title = words.visible(str(checked.get("file") or checked["kind"]), 200)
    page = environment.get_template("data.html").render(checked=checked, checks=rows, charts=charts, title=title)
    scratch = target.with_name(f".{target.name}")
    scratch.write_text(page, encoding="utf-8", errors="replace")
    scratch.replace(target)
    return target
