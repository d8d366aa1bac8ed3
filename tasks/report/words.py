"""Figures and hostile text as words for people."""

import unicodedata
from typing import Any


def percent(share: float | None, places: int = 1) -> str:
    """`86.2 %`."""
    return "–" if share is None else f"{100 * share:.{places}f} %"


def interval(figure: dict[str, Any] | None) -> str:
    """`83.1–88.9`, in percent."""
    return "" if not figure else f"{100 * figure['low']:.1f}–{100 * figure['high']:.1f}"


def points(share: float) -> str:
    """A difference of shares: `+45.2 points`."""
    return f"{100 * share:+.1f}".replace("-", "−") + " points"


def duration(seconds: float) -> str:
    """`2 min 3 s`."""
    if seconds < 1:
        return "< 1 s" if seconds > 0 else "0 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def number(value: float) -> str:
    """Whole numbers with thousands apart, others to four figures."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def plural(count: int, noun: str) -> str:
    """`2 students`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def short(digest: str) -> str:
    """First characters of a digest."""
    return digest.removeprefix("sha256:")[:10]


def size(num_bytes: int | None) -> str:
    """`2.8 MB`."""
    if num_bytes is None:
        return ""
    amount = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("the last unit always fits")


def apart(completion: str, opens_think: bool = False) -> tuple[str, str]:
    """A completion's chain and what the reader is told; either may be empty."""
    from r1kit.chat import parse

    parsed = parse(completion, opens_think)
    return (parsed.think or "").strip(), parsed.summary.strip()


def visible(content: str, most: int = 6000) -> str:
    """Text from a model made harmless to read: control and direction characters shown as what they are.

    What is longer than `most` characters is cut, and said. The page escapes the rest.
    """
    shown = "".join(_visible(character) for character in content[:most])
    left = len(content) - most
    return f"{shown} … [{left:,} more characters]" if left > 0 else shown


def _visible(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return character
    return f"⟨U+{ord(character):04X}⟩"
