"""The ablation's page: rankings, pictures of every kind of part, gaps for what has no value."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from torchwatch.report import style
from torchwatch.report.autopsy import ablation as page
from torchwatch.report.document import Fold, Plot, Table, Text
from torchwatch.results.ablation import Ablation, AxisAblation

WINDOWS = tuple((i, i + 20) for i in range(0, 200, 20))
PATCHES = tuple((r * 9, r * 9 + 9, c * 10, c * 10 + 10) for r in range(4) for c in range(3))


def part(axis, kind, names, missing=(), **more):
    n = len(names)
    importance = np.where(np.arange(n) < 2, 0.3 - 0.1 * np.arange(n), 0.001 * np.arange(n))
    importance[list(missing)] = np.nan
    ranking = tuple(int(i) for i in np.argsort(-importance) if i not in missing)
    interval = np.stack([importance - 0.05, importance + 0.05], 1)
    peak = ranking[0] if kind in ("window", "patch") and ranking else None
    return AxisAblation(
        axis,
        kind,
        tuple(names),
        importance,
        interval,
        ranking,
        "permutation",
        np.ones(n, int),
        peak=peak,
        **more,
    )


def result(*parts: AxisAblation) -> Ablation:
    first = parts[0]
    return Ablation(
        first.axis, first.importance, first.interval, first.ranking, parts, 0.93, "mean squared error",
        "permutation", 5, 500, 64, "conv.0",
    )  # fmt: skip


CHANNELS = part("channel", "element", [f"<b>{i}</b> $x_{i}$ ☃" for i in range(90)])
EVERYTHING = result(
    CHANNELS,
    part("channel", "group", ["frontal", "occipital"]),
    part("time", "window", [f"{a}–{b}" for a, b in WINDOWS], windows=WINDOWS, rate=100.0, missing=[6]),
    part("height×width", "patch", [str(p) for p in PATCHES], patches=PATCHES, grid=(4, 3), missing=[5]),
    part("module", "module", ["encoder", "head"]),
)


def drawn(name, of):
    drawing = next(d for d in page.DRAWINGS if d.name == name)
    return drawing.draw(of, style.LIGHT)


@pytest.mark.parametrize("drawing", page.DRAWINGS, ids=lambda d: d.name)
def test_every_picture_is_drawn_in_both_themes(drawing):
    for theme in (style.LIGHT, style.DARK):
        with style.themed(theme):
            assert style.png(drawing.draw(EVERYTHING, theme)).startswith(b"\x89PNG")
    assert drawing.caption(EVERYTHING)
    assert drawing.name.startswith("ablation")


def test_nothing_to_draw_is_no_picture():
    only = result(CHANNELS)
    there = [d.name for d in page.DRAWINGS if d.draw(only, style.LIGHT) is not None]
    assert there == ["ablation_elements"]
    assert all(isinstance(d.caption(only), str) for d in page.DRAWINGS)
    untested = part("feature", "element", ["a", "b"], missing=[0, 1])
    assert all(d.draw(result(untested), style.LIGHT) is None for d in page.DRAWINGS)


def test_forty_rows_are_shown_and_that_is_said():
    with style.themed(style.LIGHT):
        axes = drawn("ablation_elements", EVERYTHING).axes[0]
    assert len(axes.get_yticks()) == 40
    assert axes.get_yticklabels()[0].get_text().startswith("<b>0</b>")
    assert "target unit²" in axes.get_xlabel()
    assert "The 40 most important of 90 channels are shown." in page.DRAWINGS[0].caption(EVERYTHING)


def test_windows_are_in_seconds_and_leave_a_gap():
    with style.themed(style.LIGHT):
        axes = drawn("ablation_windows", EVERYTHING).axes[0]
    assert axes.get_xlabel() == "time (s)"
    assert axes.get_xlim() == (0.0, 2.0)
    bare = result(part("time", "window", ["0–19"], windows=((0, 20),)))
    with style.themed(style.LIGHT):
        assert drawn("ablation_windows", bare).axes[0].get_xlabel() == "time (bins)"
    caption = next(d for d in page.DRAWINGS if d.name == "ablation_windows").caption
    assert "1 has no value and leaves a gap" in caption(EVERYTHING)


def test_patches_are_where_they_are_in_the_image():
    with style.themed(style.LIGHT):
        axes = drawn("ablation_patches", EVERYTHING).axes[0]
    mesh = axes.collections[0]
    assert mesh.get_array().shape == (4, 3)
    assert mesh.get_array().mask[1, 2]
    assert mesh.norm.vmin == -mesh.norm.vmax
    assert axes.get_ylim() == (36.0, 0.0)


def test_the_page_says_baseline_ranking_and_layer():
    blocks = page.blocks(EVERYTHING)
    assert isinstance(blocks[0], Text)
    assert "500 samples: 0.93" in blocks[0].text
    assert "`conv.0`" in blocks[0].text
    table = blocks[2]
    assert isinstance(table, Table)
    assert len(table.rows) == 20
    assert table.rows[0] == ["1", "<b>0</b> $x_0$ ☃", "0.3", "0.25 … 0.35", "+32.3%"]
    assert [b.name for b in blocks if isinstance(b, Plot)] == [d.name for d in page.DRAWINGS]
    assert sum(isinstance(b, Fold) for b in blocks) == 4


def test_a_perfect_model_has_no_share_of_its_error():
    perfect = dataclasses.replace(EVERYTHING, baseline=0.0)
    assert page.blocks(perfect)[2].rows[0][-1] == "–"
