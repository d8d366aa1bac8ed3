"""A Hugging Face model card: README.md with metadata that the hub reads, and a body that people read.

Everything a ledger or a data set says is escaped: it is shown as it stands and never becomes markup.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from tasks.exports.making import Making, standing
from tasks.report.words import duration, percent, short, size, visible

_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_HUB_DATA = re.compile(r"^https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)/")
_SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|^[-+#=])")
TO_BE_WRITTEN = "*To be written by a person.*"


def render(making: Making) -> str:
    """The card as text."""
    metadata = yaml.safe_dump(_metadata(making), sort_keys=False, allow_unicode=True, width=120)
    body = "\n".join(_body(making))
    return f"---\n{metadata}---\n\n{body}\n".encode("utf-8", "replace").decode()


def escape(value: Any) -> str:
    """Any text as Markdown that shows it: no markup, no HTML, in one line; control characters are made visible."""
    words = " ".join(visible(str(value), 500).split())
    return _SPECIAL.sub(r"\\\1", words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _metadata(making: Making) -> dict[str, Any]:
    """What the hub reads. No evidence states the model's own licence, and the hub wants a word for that."""
    names = [_data_name(source) for record in making.report.data for source in record.sources]
    results = list(_results(making))
    return {
        "license": "other",
        "license_name": "to-be-stated-by-a-person",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["r1kit", *dict.fromkeys(step.record.stage for step in making.trainings)],
        **({"base_model": making.pretrained} if _HUB_NAME.match(making.pretrained) else {}),
        **({"datasets": list(dict.fromkeys(filter(None, names)))} if any(names) else {}),
        **({"model-index": [{"name": making.title, "results": results}]} if results else {}),
    }


def _data_name(source: Mapping[str, Any]) -> str:
    """The hub's name of a source that lies there, else the source's own."""
    addresses = [str(file.get("url", "")) for file in source.get("files") or ()]
    found = (match for url in addresses if (match := _HUB_DATA.match(url)))
    return next((match.group(1) for match in found), visible(str(source.get("source") or ""), 100))


def _results(making: Making) -> Iterator[dict[str, Any]]:
    """The evaluation as the hub's leaderboards read it: one result a benchmark."""
    for score in making.scores:
        if score.pass_at_1 is not None:
            shown = visible(score.benchmark, 100)
            metric = {"type": "pass@1", "name": f"pass@1, mean of {score.k}, {score.n} problems"}
            yield {
                "task": {"type": "text-generation", "name": "Reasoning"},
                "dataset": {"type": shown, "name": shown},
                "metrics": [{**metric, "value": score.pass_at_1.value, "verified": False}],
            }


def _body(making: Making) -> Iterator[str]:
    yield f"# {escape(making.title)}"
    yield ""
    yield from _warnings(making)
    yield from _details(making)
    yield from _uses()
    yield from _training(making)
    yield from _evaluation(making)
    yield from _verification(making)


def _warnings(making: Making) -> Iterator[str]:
    if making.problems:
        yield "> **Not everything behind this model is as it was recorded:**"
        yield from (f"> - {escape(problem)}" for problem in making.problems)
        yield ""
    if making.gaps:
        yield "Not known:"
        yield ""
        yield from (f"- {escape(gap)}" for gap in making.gaps)
        yield ""


def _details(making: Making) -> Iterator[str]:
    report = making.report
    names = [str(name) for name in making.architecture.get("architectures") or ()]
    yield "## Model details"
    yield ""
    yield from _list({
        "Model": f"{report.model} of run {report.run}",
        "Digest": report.digest,
        "Size": size(report.size_bytes),
        "Architecture": ", ".join(names) or "not readable here",
        "Base": making.pretrained or "made from scratch by the first step below",
        "Holds": ", ".join(report.holds) or "no environment",
        "Submitted by": ", ".join(report.submitters) or "nobody",
    })  # fmt: skip
    yield f"- **Licence, languages, contact:** {TO_BE_WRITTEN}"
    yield ""


def _uses() -> Iterator[str]:
    for title in ("Uses", "Out of scope", "Bias, risks and limitations"):
        yield from (f"## {title}", "", TO_BE_WRITTEN, "")


def _training(making: Making) -> Iterator[str]:
    yield "## Training data"
    yield ""
    rows = []
    for record in making.report.data:
        verdict = f"validated {record.validated[:10]}" if record.validated else "**never validated**"
        for source in record.sources or ({},):
            counts = f"{source['rows_kept']:,} of {source['rows_read']:,}" if _counted(source) else "–"
            aside = [f"{source[n]} {n}" for n in ("quarantined", "duplicates", "contaminated") if source.get(n)]
            named = escape(source.get("source") or "not known")
            own = [escape(record.kind), named, counts, escape(", ".join(aside)), escape(source.get("licence") or "–")]
            rows.append([*own, verdict])
    yield from _table(("kind", "source", "rows kept", "set aside", "licence", "gate"), rows)
    yield "## Training procedure"
    yield ""
    yield from _table(
        ("step", "ended", "time", "seed", "code", "settings"),
        [
            [
                escape(s.record.title), s.record.time[:16].replace("T", " "), duration(s.record.seconds),
                escape(s.record.seed), escape(short(s.record.code_digest)), escape(short(s.record.config_digest)),
            ]
            for s in making.steps
        ],
    )  # fmt: skip


def _counted(source: Mapping[str, Any]) -> bool:
    return all(isinstance(source.get(name), int) for name in ("rows_kept", "rows_read"))


def _evaluation(making: Making) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    rows = []
    for score in making.scores:
        share = score.pass_at_1
        interval = f"{percent(share.low)} – {percent(share.high)}" if share else ""
        tokens = f"{score.rates['response_tokens']:.1f}" if "response_tokens" in score.rates else "–"
        rates = [percent(score.rates.get(name)) for name in ("format_rate", "truncated_share")]
        value = percent(share.value if share else None)
        rows.append([escape(score.benchmark), value, interval, f"{score.n} × {score.k}", tokens, *rates])
    if rows:
        yield from _table(("benchmark", "pass@1", "95 % interval", "n × k", "tokens", "format", "cut"), rows)
    else:
        yield "The model was never evaluated, or its evaluation is lost."
        yield ""


def _verification(making: Making) -> Iterator[str]:
    report = making.report
    yield "## Verification"
    yield ""
    yield from _list({
        "Signature": report.signature,
        "Ledger": f"{report.ledger_entries} entries, head {report.ledger_head}",
        "Approvals": "; ".join(
            f"{a.approver} for {a.environment} on {a.time[:10]}, {standing(a)}"
            for a in report.approvals
        ) or "none",
    })  # fmt: skip
    if making.model.files:
        yield ""
        rows = [[escape(f["path"] or report.model), size(f["size"]), f["sha256"]] for f in making.model.files]
        yield from _table(("file", "size", "sha256"), rows)


def _list(values: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"- **{name}:** {escape(value)}" for name, value in values.items())


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "---|" * len(columns)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""
