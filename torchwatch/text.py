"""Text that comes from a run is data: how it is made safe to show, and how numbers are put into words."""

from __future__ import annotations

import math
import re
import unicodedata

_LONGEST = 300


def printable(text: object, limit: int = _LONGEST) -> str:
    r"""The text on one line, safe for a terminal: control characters visible (``\x1b``), cut at ``limit``.

    Characters that reorder or hide text (category Cf, such as U+202E) are shown as ``\u202e`` too.
    """
    raw = str(text)
    cut = raw[: limit + 1]
    shown = "".join(_visible(c) for c in cut)
    if len(raw) > limit or len(shown) > limit:
        return shown[: limit - 1] + "…"
    return shown


def _visible(char: str) -> str:
    if char.isprintable():
        return char
    if unicodedata.category(char) == "Zs":
        return " "
    return char.encode("unicode_escape").decode("ascii")


def markdown(text: object, limit: int = _LONGEST) -> str:
    """The text as literal Markdown: one line, every character that Markdown or HTML reads is escaped."""
    shown = printable(text, limit)
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    shown = re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", shown)
    shown = re.sub(r"^(\s*\d+)\.(?=\s|$)", r"\1\\.", shown)  # a numbered list
    return re.sub(r"^(\s*)([-=])(?=[-=\s]|$)", r"\1\\\2", shown)  # a bullet, a rule, a heading's underline


def number(value: float | None) -> str:
    """A number for people: 4 significant digits, ``–`` for None, ``NaN``/``∞`` spelled out."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """A share for people: ``0.5 %``, ``12 %``, ``1,190 %``."""
    value = 100 * share
    return f"{value:,.0f} %" if abs(value) >= 10 else f"{value:.2g} %"


def size(count: float | None) -> str:
    """Bytes for people: ``1.2 GB``."""
    if count is None or not math.isfinite(count):
        return number(count)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float | None) -> str:
    """A span of time for people: ``850 ms``, ``12.3 s``, ``4 min 05 s``, ``2 h 07 min``."""
    if seconds is None or not math.isfinite(seconds):
        return number(seconds)
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def band(score: int | None) -> str:
    """The word for a health score: excellent (from 90), good (from 70), warning (from 50), critical.

    None, the score of a run without steps, is "not judged".
    """
    if score is None:
        return "not judged"
    return next((word for least, word in _BANDS if score >= least), "critical")


_BANDS = ((90, "excellent"), (70, "good"), (50, "warning"))
