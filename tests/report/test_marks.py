from __future__ import annotations

import numpy as np

from torchwatch.report import style
from torchwatch.report.marks import Mark, draw_bad, draw_incidents


def test_one_stretch_of_bad_steps_is_one_shade_and_one_cross():
    with style.themed(style.LIGHT):
        axes = style.figure(2).subplots()
        draw_bad(axes, np.array([5, 6, 7, 20]), style.LIGHT, "loss NaN")
    (crosses,) = axes.get_lines()
    assert list(crosses.get_xdata()) == [5.0, 20.0]
    assert len(axes.patches) == 2
    assert crosses.get_label() == "loss NaN (4×)"


def test_nothing_bad_draws_nothing():
    with style.themed(style.LIGHT):
        axes = style.figure(2).subplots()
        draw_bad(axes, np.empty(0, np.int64), style.LIGHT, "loss NaN")
    assert not axes.get_lines()
    assert not axes.patches


def test_of_very_many_incidents_the_worst_are_marked():
    marks = [Mark(i, i, "info") for i in range(1, 100)] + [Mark(100, 500, "critical")]
    with style.themed(style.LIGHT):
        axes = style.figure(2).subplots()
        draw_incidents(axes, marks, style.LIGHT)
    texts = {t.get_text() for t in axes.texts}
    assert len(texts) == 30
    assert "100" in texts
