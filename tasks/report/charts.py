"""Charts as inline SVG. Colours come from the page's style sheet; every text passes through escaping."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_MOST_POINTS = 300
_MOST_HOVERS = 40


@dataclass(frozen=True)
class Dot:
    """A share with its interval."""

    label: str
    value: float
    low: float
    high: float
    note: str
    """Shown on hovering."""
    strong: bool = False


def svg(width: float, height: float, label: str, parts: Sequence[Markup], kind: str) -> Markup:
    """An SVG element that a screen reader names by `label`."""
    return Markup('<svg class="chart {}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, _n(width), _n(height), label, Markup("").join(parts)
    )


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start", hover: str = "") -> Markup:
    """A line of text, anchored at its start, middle or end."""
    title = Markup("<title>{}</title>").format(hover) if hover else ""
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}{}</text>').format(
        kind, _n(x), _n(y), anchor, title, content
    )


def path(d: str, kind: str, hover: str = "") -> Markup:
    """A path; `d` is made by this module alone."""
    title = Markup("<title>{}</title>").format(hover) if hover else ""
    return Markup('<path class="{}" d="{}">{}</path>').format(kind, d, title)


def circle(x: float, y: float, radius: float, kind: str, hover: str = "") -> Markup:
    """A dot."""
    title = Markup("<title>{}</title>").format(hover) if hover else ""
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{}">{}</circle>').format(kind, _n(x), _n(y), _n(radius), title)


def box(x: float, y: float, width: float, height: float, kind: str, radius: float = 8, hover: str = "") -> Markup:
    """A rounded rectangle."""
    title = Markup("<title>{}</title>").format(hover) if hover else ""
    return Markup(
        '<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="{}">{}</rect>'
    ).format(kind, _n(x), _n(y), _n(width), _n(height), _n(radius), title)  # fmt: skip


def dot_plot(dots: Sequence[Dot], label: str) -> Markup:
    """Shares from 0 to 100 % with their intervals, one row each."""
    row, left, right, width = 26.0, 112.0, 72.0, 440.0
    bottom = 8 + row * len(dots)

    def place(share: float) -> float:
        return left + share * (width - left - right)

    parts = [Markup("")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(path(f"M{_n(place(tick))} 4V{_n(bottom)}", "axis" if tick == 0 else "grid"))
        unit = " %" if tick == 1 else ""
        parts.append(text(place(tick), bottom + 15, f"{tick * 100:.0f}{unit}", "tick", "middle"))
    for index, dot in enumerate(dots):
        y = 8 + row * (index + 0.5)
        kind = "strong" if dot.strong else "plain"
        parts += [
            box(0, y - row / 2, width, row, "row", 4, dot.note),
            text(left - 12, y + 4, dot.label, f"name {kind}", "end"),
            path(f"M{_n(place(dot.low))} {_n(y)}H{_n(place(dot.high))}", f"interval {kind}", dot.note),
            circle(place(dot.value), y, 5, f"dot {kind}", dot.note),
            text(width - 4, y + 4, f"{100 * dot.value:.1f} %", f"value {kind}", "end"),
        ]
    return svg(width, bottom + 22, label, parts, "dots")


@dataclass(frozen=True)
class Bin:
    """Predictions of about one probability, and the share of them that came true, with its interval."""

    predicted: float
    happened: float
    low: float
    high: float
    count: int
    note: str
    """Shown on hovering."""


def reliability_diagram(bins: Sequence[Bin], label: str) -> Markup:
    """What was predicted against what happened, on a diagonal where both agree; below, how often it was predicted."""
    side, left, top, bars = 190.0, 44.0, 8.0, 30.0
    most = max(bin_.count for bin_ in bins)
    floor = top + side + 8 + bars

    def across(share: float) -> float:
        return left + share * side

    def up(share: float) -> float:
        return top + (1 - share) * side

    parts = [Markup("")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(path(f"M{_n(across(0))} {_n(up(tick))}H{_n(across(1))}", "axis" if tick == 0 else "grid"))
        parts.append(text(left - 6, up(tick) + 4, f"{tick * 100:.0f} %", "tick", "end"))
        parts.append(text(across(tick), floor + 14, f"{tick * 100:.0f} %", "tick", "middle"))
    parts.append(path(f"M{_n(across(0))} {_n(up(0))}L{_n(across(1))} {_n(up(1))}", "even"))
    for bin_ in bins:
        x, height = across(bin_.predicted), max(1.0, bars * bin_.count / most)
        parts += [
            path(f"M{_n(x)} {_n(up(bin_.low))}V{_n(up(bin_.high))}", "interval", bin_.note),
            circle(x, up(bin_.happened), 5, "dot", bin_.note),
            box(x - 5, floor - height, 10, height, "bar", 2, bin_.note),
        ]
    return svg(left + side + 26, floor + 20, label, parts, "reliability")


def bar_chart(bars: Mapping[str, int], label: str) -> Markup:
    """Counts as horizontal bars, each with its name before and its number behind it."""
    height, left, longest, most = 20.0, 150.0, 360.0, max(bars.values(), default=1)
    parts = [Markup("")]
    for place, (name, count) in enumerate(bars.items()):
        y = place * height
        width = max(1.0, longest * count / most)
        parts.append(text(left - 8, y + 14, name if len(name) < 22 else name[:20] + "…", "tick", "end", hover=name))
        parts.append(box(left, y + 3, width, height - 6, "bar", radius=3, hover=f"{name}: {count:,}"))
        parts.append(text(left + width + 6, y + 14, f"{count:,}", "tick"))
    return svg(left + longest + 80, max(1, len(bars)) * height, label, parts, "bars")


def line_chart(points: Sequence[tuple[float, float]], label: str, percent: bool = False) -> Markup:
    """A curve over steps: the raw values faint, their running mean strong."""
    width, height, left, right, top, bottom = 260.0, 132.0, 40.0, 8.0, 8.0, 20.0
    shown = thin(points, _MOST_POINTS)
    smooth = running_mean(shown)
    low, high, ticks = scale([value for _, value in shown], percent)
    first, last = shown[0][0], shown[-1][0]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return left + across * (width - left - right), top + (high - y) / (high - low) * (height - top - bottom)

    parts = [Markup("")]
    for tick in ticks:
        _, y = place(first, tick)
        parts.append(path(f"M{_n(left)} {_n(y)}H{_n(width - right)}", "grid"))
        parts.append(text(left - 6, y + 4, compact(tick, percent), "tick", "end"))
    parts += [
        text(left, height - 5, f"step {first:.0f}", "tick"),
        text(width - right, height - 5, f"{last:,.0f}", "tick", "end"),
        path(_line([place(*point) for point in shown]), "raw"),
        path(_line([place(*point) for point in smooth]), "line"),
        circle(*place(*smooth[-1]), 3.5, "end"),
    ]
    return svg(width, height, label, parts + _hovers(shown, place, height, percent), "curve")


def _hovers(points: Sequence[tuple[float, float]], place, height: float, percent: bool) -> list[Markup]:
    """Invisible columns that name the step and value under the pointer."""
    some = points if len(points) <= _MOST_HOVERS else [points[int(i * (len(points) - 1) / (_MOST_HOVERS - 1))]
                                                       for i in range(_MOST_HOVERS)]  # fmt: skip
    columns = [place(*point)[0] for point in some]
    parts: list[Markup] = []
    for index, (x, (step, value)) in enumerate(zip(columns, some, strict=True)):
        left = (columns[index - 1] + x) / 2 if index else x - 4
        right = (columns[index + 1] + x) / 2 if index + 1 < len(some) else x + 4
        note = f"step {step:,.0f}: {compact(value, percent, exact=True)}"
        parts.append(box(left, 0, max(1.0, right - left), height, "hover", 0, note))
    return parts


def thin(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most so many points: means of neighbours, the first and last steps kept."""
    if len(points) <= most:
        return list(points)
    buckets = [points[len(points) * i // most : len(points) * (i + 1) // most] for i in range(most)]
    means = [(sum(x for x, _ in bucket) / len(bucket), sum(y for _, y in bucket) / len(bucket)) for bucket in buckets]
    return [(points[0][0], means[0][1]), *means[1:-1], (points[-1][0], means[-1][1])]


def running_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over a centred window of about a tenth of the points, narrower at the ends."""
    reach = len(points) // 20
    result = []
    for index, (x, _) in enumerate(points):
        side = min(reach, index, len(points) - 1 - index)
        window = points[index - side : index + side + 1]
        result.append((x, sum(y for _, y in window) / len(window)))
    return result


def scale(values: Sequence[float], percent: bool = False) -> tuple[float, float, list[float]]:
    """Lower and upper end of an axis and its round ticks. Shares start at 0."""
    low, high = min(values), max(values)
    if percent:
        low, high = 0.0, max(high, 0.01)
    elif 0 < low < 0.6 * high:
        low = 0.0
    if high - low < 1e-12:
        margin = abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
    step = _round_step((high - low) / 3)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    ticks = [index * step for index in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def _round_step(wanted: float) -> float:
    magnitude = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if wanted <= factor * magnitude * (1 + 1e-9))


def compact(value: float, percent: bool = False, exact: bool = False) -> str:
    """A number in few characters."""
    if percent:
        return f"{100 * value:.1f} %" if exact else f"{100 * value:.3g} %"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10_000:
        return f"{value / 1000:.3g}k"
    if size < 0.001:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.4g}" if exact else f"{value:.3g}"


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _n(value: float) -> str:
    """A coordinate, as short as it can be."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
