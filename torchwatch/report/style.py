"""How plots look: two themes, colours that colour-blind readers can tell apart, axes for hostile numbers.

Categorical colours are those of Okabe and Ito (2008), which stay apart under the common colour deficiencies;
maps are viridis and cividis. Plots use no pyplot, so no global figure and no backend of the host is touched.
"""

from __future__ import annotations

import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from torchwatch.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from torchwatch.report.trace import Floats

DPI = 150
WIDTH = 10.0
"""Width of every plot in inches."""

_LONGEST_LABEL = 60


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one appearance; the page shows ``LIGHT`` or ``DARK`` as the reader's system asks."""

    name: str
    ink: str
    muted: str
    grid: str
    panel: str
    series: tuple[str, ...]
    info: str
    warning: str
    critical: str
    unmeasured: str

    def severity(self, word: str) -> str:
        """The colour of a severity."""
        return {"critical": self.critical, "warning": self.warning}.get(word, self.info)


LIGHT = Theme(
    name="light",
    ink="#1c2430",
    muted="#5b6675",
    grid="#e4e8ee",
    panel="#ffffff",
    series=("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00"),
    info="#0072b2",
    warning="#b06a00",
    critical="#c8102e",
    unmeasured="#e9ecf1",
)
DARK = Theme(
    name="dark",
    ink="#e6eaf0",
    muted="#9aa6b5",
    grid="#2c3541",
    panel="#171c24",
    series=("#56b4e9", "#f0b429", "#2bc79a", "#e29cc4", "#8fd0ff", "#e6d36a"),
    info="#56b4e9",
    warning="#f0b429",
    critical="#ff6b6b",
    unmeasured="#29313c",
)

MARKERS = {"info": "o", "warning": "^", "critical": "s"}


def label(text: object, limit: int = _LONGEST_LABEL) -> str:
    """The text as a plot label: one line, only characters that the font has, its middle left out if too long.

    The middle, because the two ends of a layer's name tell it apart from its neighbours.
    """
    raw = str(text)
    if len(raw) > 4 * limit:
        raw = f"{raw[: 2 * limit]}…{raw[-2 * limit :]}"
    shown = "".join(
        c if ord(c) in _glyphs() else c.encode("unicode_escape").decode() for c in printable(raw, 9999)
    )
    if shown.startswith("_"):
        shown = f" {shown}"  # a legend leaves out what begins with an underscore
    if len(shown) <= limit:
        return shown
    head = (limit - 1) // 2
    return f"{shown[:head]}…{shown[-(limit - 1 - head) :]}"


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib import font_manager

    path = font_manager.findfont("DejaVu Sans")
    return frozenset(font_manager.get_font(path).get_charmap())


@contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """Inside, figures have the theme's colours, text is never mathematics, and overflow is no warning."""
    import matplotlib as mpl
    from matplotlib import rcsetup

    settings: Any = {
        "axes.axisbelow": True,
        "axes.edgecolor": theme.muted,
        "axes.facecolor": theme.panel,
        "axes.grid": True,
        "axes.labelcolor": theme.ink,
        "axes.labelsize": 9,
        "axes.linewidth": 0.8,
        "axes.prop_cycle": rcsetup.cycler(color=theme.series),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": theme.ink,
        "axes.titlelocation": "left",
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.unicode_minus": True,
        "figure.facecolor": theme.panel,
        "font.family": ["DejaVu Sans"],
        "font.size": 9,
        "grid.color": theme.grid,
        "grid.linewidth": 0.7,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "legend.labelcolor": theme.ink,
        "savefig.facecolor": theme.panel,
        "text.color": theme.ink,
        "text.parse_math": False,
        "text.usetex": False,
        "xtick.color": theme.muted,
        "xtick.labelsize": 8,
        "ytick.color": theme.muted,
        "ytick.labelsize": 8,
    }
    with mpl.rc_context(), np.errstate(all="ignore"):
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def figure(height: float) -> Figure:
    """An empty figure, ``height`` inches high, that makes room for its own labels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.09, h_pad=0.09))


def png(drawn: Figure) -> bytes:
    """The figure as PNG at 150 dpi; call it inside :func:`themed`."""
    out = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a glyph or a layout that does not fit is no failure
        drawn.savefig(out, dpi=DPI, format="png", metadata={"Software": "torchwatch"})
    return out.getvalue()


def range_of(*arrays: Floats) -> tuple[float, float] | None:
    """Smallest and largest finite value, None when there is none."""
    finite = [a[np.isfinite(a)] for a in arrays]
    joined = np.concatenate(finite) if finite else np.empty(0)
    return (float(joined.min()), float(joined.max())) if len(joined) else None


def scale(axes: Axes, *arrays: Floats, wide: float = 30.0, axis: str = "y") -> str:
    """Choose the scale that shows the data: ``linear``, ``log``, or ``symlog`` where zeros or negatives are.

    Logarithmic only when the positive values span more than a factor of ``wide`` between their 2nd and 100th
    percentile; then exact zeros and negative values stay visible on a symmetric scale.
    """
    joined = np.concatenate([a[np.isfinite(a)].ravel() for a in arrays]) if arrays else np.empty(0)
    sizes = np.abs(joined[joined != 0])
    if not len(sizes) or sizes.max() <= wide * np.percentile(sizes, 2):
        _plain_ticks(axes, axis)
        return "linear"
    setter = axes.set_yscale if axis == "y" else axes.set_xscale
    if (joined <= 0).any():
        threshold = max(float(np.percentile(sizes, 2)), float(sizes.max()) * 1e-12)
        setter("symlog", linthresh=10.0 ** math.floor(math.log10(threshold)), linscale=0.5)
        chosen = "symlog"
    else:
        setter("log")
        chosen = "log"
    _power_ticks(axes, axis)
    return chosen


def _plain_ticks(axes: Axes, axis: str) -> None:
    from matplotlib.ticker import FuncFormatter

    (axes.yaxis if axis == "y" else axes.xaxis).set_major_formatter(FuncFormatter(lambda v, _: short(v)))


def _power_ticks(axes: Axes, axis: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    target = axes.yaxis if axis == "y" else axes.xaxis
    target.set_major_formatter(FuncFormatter(lambda v, _: short(v)))
    target.set_minor_formatter(NullFormatter())


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def short(value: float, _: Any = None) -> str:
    """A tick's number: plain from 0.001 to 99,999, else with a power of ten (``2×10⁻⁵``)."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}".replace("-", "−")
    mantissa, exponent = f"{value:.2e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".").replace("-", "−")
    power = "10" + str(int(exponent)).translate(_RAISED)
    return {"1": power, "−1": f"−{power}"}.get(mantissa, f"{mantissa}×{power}")


def steps_axis(axes: Axes, last: float, *, title: bool = True) -> None:
    """An x axis in whole steps, with thousands marked."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlim(*_padded(axes.get_xlim(), last))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,.0f}"))
    if title:
        axes.set_xlabel("step")


def _padded(limits: tuple[float, float], last: float) -> tuple[float, float]:
    """From step 0 to a little after the last step; a run of one step gets a step on either side."""
    _, high = limits
    end = max(last, 1.0)
    return (-0.01 * end if last > 1 else 0.0, max(end * 1.01, 2.0 if last <= 1 else min(high, end * 1.01)))


def legend_above(axes: Axes) -> None:
    """A legend above the axes and above the numbers of incidents, where it hides no data."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=1.7, ncols=4)


def colormap(name: str, theme: Theme) -> Colormap:
    """A perceptually uniform map; cells that were not measured get the theme's quiet grey."""
    import matplotlib as mpl

    return mpl.colormaps[name].with_extremes(bad=theme.unmeasured)
