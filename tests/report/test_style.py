from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from tests.helpers_report import HOSTILE
from torchwatch.report import style


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.5, "0.5"),
        (-20, "−20"),
        (1e-5, "10⁻⁵"),
        (-1e7, "−10⁷"),
        (2.5e-4, "2.5×10⁻⁴"),
        (99999, "99999"),
    ],
)
def test_ticks_are_short_and_without_markup(value: float, shown: str):
    assert style.short(value) == shown


def test_label_keeps_both_ends_of_a_long_name():
    shown = style.label("encoder." + "x" * 10_000 + ".weight")
    assert len(shown) <= 60
    assert shown.startswith("encoder.")
    assert shown.endswith(".weight")


def test_label_shows_control_characters_and_glyphs_the_font_lacks():
    shown = style.label(HOSTILE, 1000)
    assert shown.isprintable()
    assert "\\x1b[31m" in shown
    assert "\\u6f22" in shown
    assert "$x_{1}$" in shown


def test_label_that_begins_with_an_underscore_is_not_hidden_from_legends():
    assert style.label("_private") == " _private"


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ([1.0, 2.0, 3.0], "linear"),
        ([1e-4, 1.0, 100.0], "log"),
        ([0.0, 1e-4, 100.0], "symlog"),
        ([-5.0, 1e-4, 100.0], "symlog"),
        ([0.0, 0.0], "linear"),
        ([np.nan, np.inf], "linear"),
        ([], "linear"),
        ([5e-324, 1e308], "log"),
    ],
)
def test_scale_follows_the_data(values: list[float], chosen: str):
    with style.themed(style.LIGHT):
        drawn = style.figure(2)
        axes = drawn.subplots()
        axes.plot(range(len(values)), values)
        assert style.scale(axes, np.array(values)) == chosen
        assert axes.get_yscale() == chosen
        assert style.png(drawn).startswith(b"\x89PNG")


def test_symlog_keeps_zeros_on_the_axes():
    with style.themed(style.LIGHT):
        axes = style.figure(2).subplots()
        axes.plot([0, 1, 2], [0.0, 1e-6, 100.0])
        style.scale(axes, np.array([0.0, 1e-6, 100.0]))
        assert axes.get_ylim()[0] <= 0


def test_theme_leaves_the_hosts_settings_alone():
    before = dict(mpl.rcParams)
    with style.themed(style.DARK):
        assert mpl.rcParams["figure.facecolor"] == style.DARK.panel
    assert dict(mpl.rcParams) == before


def test_theme_ignores_settings_that_would_need_latex():
    with mpl.rc_context({"text.usetex": True}), style.themed(style.LIGHT):
        drawn = style.figure(1)
        drawn.subplots().set_title("a $\\frac{1}{$ b")
        assert style.png(drawn).startswith(b"\x89PNG")


def test_a_picture_has_150_dpi():
    from io import BytesIO

    from PIL import Image

    with style.themed(style.LIGHT):
        image = Image.open(BytesIO(style.png(style.figure(2))))
    assert image.size == (1500, 300)
    assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)


@pytest.mark.parametrize("theme", [style.LIGHT, style.DARK])
def test_colours_of_severities_differ_in_lightness_and_marker(theme: style.Theme):
    colours = {theme.severity(s) for s in ("info", "warning", "critical")}
    assert len(colours) == 3
    assert len(set(style.MARKERS.values())) == 3
    assert theme.severity("unheard-of") == theme.info
