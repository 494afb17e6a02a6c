from __future__ import annotations

import numpy as np
import pytest

from torchwatch.report import style
from torchwatch.report.plots import gradient_flow


def axes_of(report):
    with style.themed(style.LIGHT):
        return gradient_flow.draw(report, style.LIGHT).axes


def test_rows_are_the_layers_with_gradients_first_layer_at_the_top(report_of):
    map_axes = axes_of(report_of("faulty"))[0]
    assert [t.get_text() for t in map_axes.get_yticklabels()] == [
        "conv1",
        "conv2",
        "classifier.0",
        "classifier.2",
    ]
    assert map_axes.get_ylim()[0] > map_axes.get_ylim()[1]


def test_first_and_last_tenth_are_dots_and_zero_is_on_the_axis(report_of):
    change = axes_of(report_of("faulty"))[1]
    began, ended = change.get_lines()
    assert began.get_xdata()[0] == pytest.approx(2e-3, rel=0.3)
    assert ended.get_xdata()[0] == 0.0
    assert change.get_xlim()[0] <= 0.0


def test_bar_names_its_unit_and_that_zero_has_a_colour(report_of):
    bar = axes_of(report_of("faulty"))[-1]
    assert "gradient RMS (dark red: exactly 0)" in (bar.get_xlabel(), bar.get_ylabel())


def test_many_layers_are_cut_to_the_worst_and_that_is_said(report_of):
    report = report_of("wide")
    names = [t.get_text() for t in axes_of(report)[0].get_yticklabels()]
    assert len(names) == 40
    assert {"conv1", "conv2"} <= set(names)
    assert "the 40 worst of 304 layers" in gradient_flow.caption(report)


def test_median_of_a_row_without_values_is_unmeasured():
    assert np.isnan(gradient_flow._typical(np.array([[np.nan, np.nan]]))).all()
