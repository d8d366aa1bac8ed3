"""The page: every section's contents, handed to one template that escapes whatever it prints."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from r1kit.data.config import KINDS
from tasks.report import words
from tasks.report.charts import Bin, Dot, compact, dot_plot, line_chart, reliability_diagram
from tasks.report.data_page import write_data_page
from tasks.report.facts import STAGE_TITLES, STAGES, Curve, Run, model_title, read_run, stage_title
from tasks.report.findings import findings, reward_model_figures, verdict
from tasks.report.pictures import STATUS_WORDS, artifact_label, lineage, recipe
from tasks.summary import Summary

_HERE = Path(__file__).parent
_CURVES: Mapping[str, tuple[str, bool]] = {
    "reward": ("Reward", False),
    "reward_accuracy": ("Accuracy of samples", True),
    "response_tokens": ("Response length, tokens", False),
    "reward_format": ("Format", True),
    "reward_language": ("One language", True),
    "reward_preference": ("Preference score", True),
    "guard_accuracy": ("Alarm: accuracy on held-out prompts", True),
    "guard_preference": ("Alarm: preference score on held-out prompts", True),
    "loss": ("Loss", False),
    "agreement": ("Agreement with pairs", True),
    "kl": ("KL to the reference, nats", False),
    "entropy": ("Entropy, nats", False),
    "truncated_share": ("Cut at the limit", True),
    "zero_variance_share": ("Groups without variance", True),
    "clipped_share": ("Ratios outside the clip range", True),
    "clipped_low_share": ("Gradients taken by the lower clip", True),
    "clipped_high_share": ("Gradients taken by the upper clip", True),
    "sampler_gap": ("Sampler against trainer, nats", False),
    "reward_length": ("Penalty for length", False),
    "kept_share": ("Samples kept", True),
    "gradient_norm": ("Gradient norm", False),
    "watch_nonfinite": ("Watch: steps in a row not finite", False),
    "watch_truncated": ("Watch: steps in a row cut at the limit", False),
    "watch_zero_variance": ("Watch: steps in a row without variance", False),
    "watch_kl": ("Watch: steps in a row off the reference", False),
    "watch_constant": ("Watch: steps in a row with a constant reward", False),
}
"""Metric → its title, and whether it is a share."""
_FEWEST_POINTS = 3
_SIDE_BY_SIDE = ("base", "zero", "r1")


def write_report(run_dir: Path, summary: Summary) -> Path:
    """Write `report.html` into a run's directory: one file that asks nothing of any network.

    Beside it goes a page on each validated data set, `data-KIND.html`.

    Args:
        run_dir: holds metrics.jsonl, resolved.yaml and `stages/`; what is absent leaves its section out.
    """
    target = run_dir / "report.html"
    scratch = run_dir / ".report.html"
    run = read_run(run_dir, summary)
    for file in validated_files(run):
        write_data_page(file, run_dir / data_page_name(file["kind"]))
    scratch.write_text(render(run), encoding="utf-8", errors="replace")
    scratch.replace(target)
    return target


def render(run: Run) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": words.percent, "duration": words.duration, "number": words.number, "short": words.short,
        "interval": words.interval, "visible": words.visible, "model_title": model_title,
    }  # fmt: skip
    return environment.get_template("page.html").render(
        run=run,
        summary=run.summary,
        verdict=verdict(run),
        findings=findings(run),
        tiles=list(_tiles(run)),
        recipe=recipe(run),
        plots=list(_plots(run)),
        models=list(_models(run)),
        curves=list(_curve_groups(run)),
        transcripts=list(_transcripts(run)),
        validation=_validation(run),
        reward_models=reward_model_figures(run),
        calibrations=list(_calibrations(run)),
        stages=list(_stage_rows(run)),
        lineage=lineage(run.stages),
    )


def _tiles(run: Run) -> Iterator[tuple[str, str, str]]:
    """Figure, what it is, what it came from."""
    finals = [(model, run.evaluations[model]["overall"]) for model in _SIDE_BY_SIDE if model in run.evaluations]
    for model, overall in finals:
        if overall.get("pass_at_1"):
            note = f"pass@1, 95 % {words.interval(overall['pass_at_1'])}"
            yield words.percent(overall["pass_at_1"]["value"]), model_title(model), note
    if len(finals) > 1:
        (_, first), (title, last) = finals[0], finals[-1]
        figure = f"{first['response_tokens']:.0f} → {last['response_tokens']:.0f}"
        yield figure, "tokens a response", f"{model_title(finals[0][0])} → {model_title(title)}"
        before = f"{words.percent(first['format_rate'], 0)} before"
        yield words.percent(last["format_rate"], 0), "in the full format", before
    yield words.duration(run.summary.seconds), "from start to end", ""


def _plots(run: Run) -> Iterator[tuple[str, Markup]]:
    """A dot plot of each benchmark, all problems first."""
    benchmarks = sorted({name for document in run.evaluations.values() for name in document["benchmarks"]})
    titles = ["all problems", *benchmarks] if len(benchmarks) > 1 else benchmarks
    for title in titles:
        dots = []
        for model, document in run.evaluations.items():
            scores = document["overall"] if title == "all problems" else document["benchmarks"].get(title)
            if scores and (share := scores.get("pass_at_1")):
                figure = f"{words.percent(share['value'])}, 95 % interval {words.interval(share)}"
                note = f"{model_title(model)}: {figure}, {scores['n']:,} problems × {scores['k']} samples"
                dots.append(Dot(model_title(model), share["value"], share["low"], share["high"], note, model == "r1"))
        if dots:
            yield title, dot_plot(dots, f"pass@1 of every model on {title}")


def _models(run: Run) -> Iterator[dict[str, Any]]:
    """Rows of the table of models: every benchmark of every model."""
    for model, document in run.evaluations.items():
        benchmarks = document["benchmarks"]
        for index, (name, scores) in enumerate(benchmarks.items()):
            row = {
                "model": model_title(model),
                "first": index == 0,
                "span": len(benchmarks),
                "benchmark": name,
            }
            yield {**row, "cost": document.get("seconds_per_million_tokens"), **scores}


def _curve_groups(run: Run) -> Iterator[tuple[str, list[tuple[str, str, Markup]]]]:
    """Stage → its curves as (title, first → last, chart)."""
    for stage in sorted(run.curves, key=lambda name: (_order(name), name)):
        if stage.startswith("evaluate"):
            continue
        shown = sorted((c for c in run.curves[stage] if _metric(c) in _CURVES), key=lambda c: (_part(c), _place(c)))
        charts = [_curve(curve) for curve in shown if len(curve.points) >= _FEWEST_POINTS and _varies(curve)]
        if charts:
            base, _, variant = stage.partition("-")
            title = STAGE_TITLES.get(base, base)
            yield (f"{title}: {variant}" if variant else title), charts


def _metric(curve: Curve) -> str:
    return curve.metric.rpartition("/")[2]


def _part(curve: Curve) -> str:
    """Which of a stage's trainings a curve is of; empty where it has one."""
    return curve.metric.rpartition("/")[0]


def _place(curve: Curve) -> int:
    return tuple(_CURVES).index(_metric(curve))


def _order(stage: str) -> int:
    base = next((name for name in STAGES if stage == name or stage.startswith(f"{name}-")), "")
    return STAGES.index(base) if base else len(STAGES)


def _varies(curve: Curve) -> bool:
    values = [value for _, value in curve.points]
    return max(values) > min(values) or _metric(curve) in ("reward", "loss", "reward_accuracy")


def _curve(curve: Curve) -> tuple[str, str, Markup]:
    title, share = _CURVES[_metric(curve)]
    if part := _part(curve):
        title = f"{title}, {part}"
    tail = max(1, len(curve.points) // 10)
    first = sum(value for _, value in curve.points[:tail]) / tail
    last = sum(value for _, value in curve.points[-tail:]) / tail
    change = f"{compact(first, share)} → {compact(last, share)}"
    return (
        title,
        change,
        line_chart(curve.points, f"{title} of {curve.stage} over its steps: {change}", share),
    )


def _transcripts(run: Run) -> Iterator[dict[str, Any]]:
    """Problems that the first, the RL-only and the last model all answered, side by side."""
    models = [model for model in _SIDE_BY_SIDE if model in run.evaluations] or list(run.evaluations)[:3]
    answers: dict[str, dict[str, Mapping[str, Any]]] = {}
    for model in models:
        for row in run.evaluations[model].get("transcripts", []):
            answers.setdefault(row["problem"], {})[model] = row
    for by_model in answers.values():
        if len(by_model) < len(models):
            continue
        row = next(iter(by_model.values()))
        same = {name: row[name] for name in ("problem", "benchmark", "prompt", "gold")}
        yield {**same, "columns": [_column(model, by_model[model]) for model in models]}


def _column(model: str, transcript: Mapping[str, Any]) -> dict[str, Any]:
    think, answer = words.apart(transcript["completion"], transcript["opens_think"])
    same = {name: transcript[name] for name in ("tokens", "score", "finished", "reason")}
    return {**same, "model": model_title(model), "think": think, "answer": answer}


def validated_files(run: Run) -> list[dict[str, Any]]:
    """What the gate says of each data set that has rows."""
    files = list((run.validation or {}).get("files") or [])
    return [file for file in files if file.get("kind") in KINDS and file.get("rows") and file.get("checks")]


def data_page_name(kind: str) -> str:
    """The file of a data set's own page."""
    return f"data-{kind}.html"


def _calibrations(run: Run) -> Iterator[tuple[str, str, Markup]]:
    """Title, calibration error and reliability diagram of each reward model."""
    figures = reward_model_figures(run)
    for kind, found in run.calibrations.items():
        bins = [_bin(bin_) for bin_ in found]
        error = words.percent(figures.get(kind, {}).get("calibration_error"))
        predicted = "the first response preferred" if kind == "helpful" else "the response harmless"
        label = f"Calibration of the {kind} reward model: predicted and actual share of {predicted}"
        yield f"{kind}: {predicted}", f"calibration error {error}", reliability_diagram(bins, label)


def _bin(bin_: Mapping[str, Any]) -> Bin:
    happened = bin_["happened"]
    note = (
        f"{words.plural(bin_['count'], 'prediction')} of {words.percent(bin_['predicted'])}: "
        f"{words.percent(happened['value'])} came true, 95 % interval {words.interval(happened)}"
    )
    return Bin(bin_["predicted"], happened["value"], happened["low"], happened["high"], bin_["count"], note)


def _validation(run: Run) -> dict[str, Any] | None:
    """The gate's verdict: a row a file, every rule, and the first rows that were set aside."""
    if not run.validation:
        return None
    files = list(run.validation.get("files") or [])
    rows = [{name: _plain(value, name) for name, value in file.items() if _is_plain(value)} for file in files]
    verified = run.validation.get("verified") or {}
    quarantine = run.validation.get("quarantine") or {}
    counts = (quarantine.get("counts") or {}).items()
    return {
        "words": _gate_words(run.validation.get("success"), verified),
        "columns": list(dict.fromkeys(name for row in rows for name in row)),
        "numeric": {name for file in files for name, value in file.items() if type(value) in (int, float)},
        "rows": rows,
        "pages": {file["kind"]: data_page_name(file["kind"]) for file in validated_files(run)},
        "checks": [
            {**check, "kind": _plain(file["kind"], "kind"), "limit": _plain(check["limit"], ""), "first": _first(check)}
            for file in files
            for check in file.get("checks") or []
        ],
        "set_aside": ", ".join(f"{words.number(count)} {rule}" for rule, count in counts),
        "quarantine": [
            {name: _plain(line.get(name), name) for name in _QUARANTINE} for line in quarantine.get("first") or []
        ],
        "quarantine_columns": _QUARANTINE,
    }


_QUARANTINE = ("kind", "source", "file", "row", "field", "value", "reason", "rule")


def _first(check: Mapping[str, Any]) -> str:
    """The first row at fault, or what broke the check."""
    examples = [f"{example['id']}: {example['value']}" for example in check["examples"][:1]]
    return words.visible(check.get("error") or "".join(examples), 200)


def _gate_words(success: Any, verified: Mapping[str, Any]) -> str:
    """What the gate decided, and on how many gold answers."""
    decided = {True: "The gate let these bytes through.", False: "The gate stopped the flow."}.get(success, "")
    if not verified.get("rows"):
        return decided
    return f"{decided} {verified['passed']} of {verified['rows']} gold answers in a sample scored 1."


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _plain(value: Any, name: str) -> str:
    """One cell: digests short, shares in percent, truth as a mark."""
    if isinstance(value, bool):
        return "✓" if value else "✕"
    if isinstance(value, int | float):
        return words.percent(value, 2) if name.endswith("share") else words.number(value)
    text = "" if value is None else str(value)
    return words.short(text) if name.startswith(("sha256", "digest")) else words.visible(text, 200)


def _stage_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Rows of the table of stages."""
    longest = max((stage.seconds for stage in run.stages), default=0.0) or 1.0
    for stage in run.stages:
        yield {
            "stage": stage,
            "title": stage_title(stage),
            "status": STATUS_WORDS.get(stage.status, stage.status),
            "share": stage.seconds / longest,
            "outputs": [
                (artifact_label(stage, role), output, words.size(output.size_bytes))
                for role, output in stage.outputs.items()
            ],
            "metrics": sorted((name, value) for name, value in stage.metrics.items() if value is not None),
            "figures": words.plural(len(stage.metrics), "figure"),
        }
