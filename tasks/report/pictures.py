"""The two large pictures: the recipe with what each stage reached, and which artifact went where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.report.charts import box, circle, path, svg, text
from tasks.report.facts import MADE_BY, STAGE_TITLES, STAGES, Run, model_place, model_title
from tasks.report.findings import reward_model_figures
from tasks.report.words import duration, percent, plural, short
from tasks.summary import StageSummary

_PLACES = {
    "data": (0, 0), "validate": (1, 0), "base": (2, 0), "zero": (3, 0), "cold_start": (4, 0),
    "reason": (5, 0),
    "reject": (0, 1), "refine": (1, 1), "reward_models": (2, 1), "prefer": (3, 1), "distill": (4, 1),
    "register": (5, 1),
}  # fmt: skip
_BOX, _HEIGHT, _GAP_X, _GAP_Y = 158.0, 92.0, 26.0, 58.0
_ICONS = {"ran": "✓", "running": "…", "cached": "↺", "skipped": "–", "failed": "✕"}
STATUS_WORDS = {
    "ran": "ran",
    "running": "running",
    "cached": "reused",
    "skipped": "skipped",
    "failed": "failed",
}
_WORST_FIRST = ("failed", "running", "ran", "cached", "skipped")


def recipe(run: Run) -> Markup:
    """The stages as boxes in the order of the recipe, each with status, seconds and its key figure."""
    width = 6 * _BOX + 5 * _GAP_X + 4
    parts = _arrows()
    for name, (column, row) in _PLACES.items():
        stages = [stage for stage in run.stages if stage.stage == name]
        parts += _stage_box(run, name, stages, _left(column), 2 + row * (_HEIGHT + _GAP_Y))
    height = 2 * _HEIGHT + _GAP_Y + 30
    return svg(width, height, "The recipe: its stages, what became of them and what they reached", parts, "recipe")


def _stage_box(run: Run, name: str, stages: Sequence[StageSummary], x: float, y: float) -> list[Markup]:
    status = next((s for s in _WORST_FIRST if any(stage.status == s for stage in stages)), "skipped")
    seconds = sum(stage.seconds for stage in stages)
    foot = STATUS_WORDS[status] if status != "ran" else duration(seconds)
    figure = key_figure(run, name, stages) if stages else ""
    return [
        box(x, y, _BOX, _HEIGHT, f"stage {status}", 10, f"{name}: {STATUS_WORDS[status]}, {duration(seconds)}"),
        box(x, y + 12, 4, _HEIGHT - 24, f"bar {status}", 2),
        text(x + 16, y + 26, STAGE_TITLES[name], "title"),
        text(x + 16, y + 52, figure, "figure"),
        text(x + 16, y + 78, foot, "foot"),
        text(x + _BOX - 12, y + 78, _ICONS[status], f"icon {status}", "end"),
    ]


def _arrows() -> list[Markup]:
    """The chain strong, what joins it from the side faint."""
    bottom, top = 2 + _HEIGHT, 2 + _HEIGHT + _GAP_Y
    low, middle = top + _HEIGHT, 2 + _HEIGHT + _GAP_Y / 2
    first, second = 2 + _HEIGHT / 2, top + _HEIGHT / 2
    side = [
        _bend(_left(2) + 60, bottom, bottom + 20, _left(1) + _BOX - 30, top - 3),  # base feeds the second SFT,
        f"M{_left(2) + 90} {bottom}V{top - 3}",  # and the reward models;
        _bend(_left(0) + 80, low, low + 22, _left(4) + 80, low + 3),  # the curated set feeds the students,
        _bend(_left(1) + 110, low, low + 12, _left(3) + 40, low + 3),  # Dev3 preference RL;
        _bend(_left(3) + _BOX - 40, top, top - 16, _left(5) + 60, top - 3),  # R1 is registered
    ]
    chain = [
        *(f"M{_left(column) + _BOX} {first}H{_left(column + 1) - 3}" for column in range(5)),
        _bend(_left(5) + 80, bottom, middle + 2, _left(0) + 80, top - 3),
        *(f"M{_left(column) + _BOX} {second}H{_left(column + 1) - 3}" for column in (0, 2)),
    ]
    right = [(_left(column) - 1, first) for column in range(1, 6)]
    right += [(_left(column) - 1, second) for column in (1, 3)]
    down = [_left(0) + 80, _left(1) + _BOX - 30, _left(2) + 90, _left(5) + 60]
    up = [_left(4) + 80, _left(3) + 40]
    heads = [f"M{x} {y}l-6 -4v8z" for x, y in right]
    heads += [f"M{x} {top - 1}l-4 -6h8z" for x in down] + [f"M{x} {low + 1}l-4 6h8z" for x in up]
    lines = [path(d, "arrow side") for d in side] + [path(d, "arrow chain") for d in chain]
    return lines + [path(d, "head") for d in heads]


def _left(column: int) -> float:
    return 2 + column * (_BOX + _GAP_X)


def _bend(x: float, y: float, level: float, to_x: float, to_y: float) -> str:
    """From (x, y) up or down to a level, along it, and up or down to (to_x, to_y), with round corners."""
    out = 8 if level > y else -8
    back = 8 if to_y > level else -8
    along = 8 if to_x > x else -8
    return (
        f"M{x} {y}V{level - out}Q{x} {level} {x + along} {level}"
        f"H{to_x - along}Q{to_x} {level} {to_x} {level + back}V{to_y}"
    )


def key_figure(run: Run, name: str, stages: Sequence[StageSummary]) -> str:
    """What a stage reached, in a few words."""
    metrics: Mapping[str, float] = {
        key: value for stage in stages for key, value in stage.metrics.items() if value is not None
    }
    model = MADE_BY.get(name)
    if model and (overall := run.evaluations.get(model, {}).get("overall")) and overall.get("pass_at_1"):
        return f"pass@1 {percent(overall['pass_at_1']['value'])}"
    if name == "distill":
        return plural(sum(stage.status != "skipped" for stage in stages), "student")
    if name == "reward_models" and (figures := reward_model_figures(run)):
        return "agree " + " · ".join(percent(own["agreement"], 0) for own in figures.values())
    if "quarantined" in metrics:
        return f"{metrics['quarantined']:,.0f} quarantined"
    return plural(int(metrics["rows"]), "row") if "rows" in metrics else ""


@dataclass(frozen=True)
class _Lane:
    """An artifact: where it was made and who used it, as columns."""

    label: str
    digest: str
    made: int | None
    used: tuple[int, ...]
    hover: str
    lost: bool


def lineage(stages: Sequence[StageSummary], faults: Mapping[str, str] | None = None) -> Markup | None:
    """One lane an artifact: a full dot where it was made, a ring at each stage that used it.

    Args:
        faults: digest → why those bytes are no longer the recorded ones; such a lane is crossed out.
    """
    columns = [stage for stage in STAGES if any(s.stage == stage and s.outputs for s in stages)]
    lanes = _lanes(stages, columns, faults or {})
    if not lanes:
        return None
    left, step, row, top = 282.0, 58.0, 24.0, 92.0
    width, bottom = left + step * len(columns) + 30, top + row * len(lanes)

    def across(column: int) -> float:
        return left + step * (column + 0.5)

    parts: list[Markup] = []
    for index, stage in enumerate(columns):
        x = across(index)
        parts.append(path(f"M{x} {top - 10}V{bottom}", "grid"))
        parts.append(Markup('<g transform="translate({} {}) rotate(-38)">{}</g>').format(
            x - 2, top - 18, text(0, 0, STAGE_TITLES[stage], "column")))  # fmt: skip
    for index, lane in enumerate(lanes):
        y = top + row * (index + 0.5)
        stops = sorted({*lane.used, *(() if lane.made is None else (lane.made,))})
        parts += [
            box(0, y - row / 2, width, row, "row", 4, lane.hover),
            text(8, y + 4, lane.label, "name", hover=lane.hover),
            text(left - 10, y + 4, short(lane.digest), "digest", "end", hover=lane.digest),
            path(f"M{across(stops[0])} {y}H{across(stops[-1])}", "lane"),
            *(circle(across(stop), y, 4.5, "used", lane.hover) for stop in lane.used if stop != lane.made),
        ]
        if lane.made is not None:
            kind = "made lost" if lane.lost else "made"
            parts.append(circle(across(lane.made), y, 5, kind, lane.hover))
            if lane.lost:
                parts.append(text(across(lane.made) + 9, y + 4, "✕", "icon lost", hover=lane.hover))
    return svg(width, bottom + 8, "Which stage made which artifact, and which stages used it", parts, "lineage")


def _lanes(stages: Sequence[StageSummary], columns: Sequence[str], faults: Mapping[str, str]) -> list[_Lane]:
    users: dict[str, list[StageSummary]] = {}
    for stage in stages:
        for digest in stage.inputs.values():
            users.setdefault(digest, []).append(stage)
    lanes: dict[str, tuple[tuple[int, tuple[int, str]], _Lane]] = {}
    for stage in stages:
        for role, output in stage.outputs.items():
            using = users.get(output.digest, [])
            places = {columns.index(user.stage) for user in using if user.stage in columns}
            made = columns.index(stage.stage)
            names = ", ".join(user.name for user in using) or "no stage"
            label = artifact_label(stage, role)
            fault = faults.get(output.digest, "")
            hover = f"{label} · {output.digest} · made by {stage.name} · used by {names}" + (
                f" · {fault}" if fault else ""
            )
            order = (made, model_place(stage.variant) if stage.variant else (-1, role))
            lane = _Lane(label, output.digest, made, tuple(sorted(places)), hover, bool(fault))
            lanes.setdefault(output.digest, (order, lane))
    return [lane for _, lane in sorted(lanes.values(), key=lambda item: item[0])]


def artifact_label(stage: StageSummary, role: str) -> str:
    """`R1-Zero` for the model of stage zero; else the role's own name."""
    if role == "model":
        made = MADE_BY.get(stage.stage) or stage.name
        return f"{model_title(made)} model"
    if role == "reward_model":
        return f"{stage.variant} reward model"
    name = role.replace("_", " ")
    return f"{name} of {model_title(stage.variant)}" if stage.variant else name
