from __future__ import annotations

import numpy as np

from tests.helpers_pages import HOSTILE, blocks, figures
from tests.helpers_scored import noise, said
from torchwatch.report import style
from torchwatch.report.document import Fold, Table


def result_of(columns: int = 1, values: int = 4):
    y = noise(240, 1)
    labels = np.arange(240) % values
    p = y + np.where(labels == 1, 2.0, 0.3)[:, None] * noise(240, 1, seed=1)
    meta = {f"column {i} {HOSTILE}": [f"{HOSTILE} {v}" for v in labels] for i in range(columns)}
    return said(p, y, "failures", meta)


def test_a_panel_per_column_marks_the_slice_that_stands_out():
    axes = figures("failures", result_of())["failures_slices"].axes
    assert len([a for a in axes if a.get_visible()]) == 2
    assert axes[0].get_title(loc="left") == "predicted value"
    assert axes[0].get_xlabel() == "mean squared error"
    marks = [line for line in axes[1].get_lines() if line.get_marker() == "o"]
    assert [m.get_markeredgecolor() for m in marks].count(style.LIGHT.critical) == 1


def test_many_columns_and_many_slices_stay_readable_and_that_is_said():
    from torchwatch.report.autopsy.failures import DRAWINGS

    result = result_of(columns=9, values=30)
    axes = figures("failures", result)["failures_slices"].axes
    assert len(axes) == 6
    assert max(len(a.get_yticks()) for a in axes) == 12
    words = DRAWINGS[0].caption(result)
    assert "4 more columns" in words
    assert "the worst 12 are shown" in words


def test_ten_of_the_worst_are_shown_and_the_rest_folded():
    found = blocks("failures", result_of())
    tables = [b for b in found if isinstance(b, Table)]
    assert len(tables[0].rows) == 10
    folds = [b for b in found if isinstance(b, Fold)]
    assert folds[-1].summary == "The next 40"


def test_long_values_are_shortened_for_the_table():
    table = next(b for b in blocks("failures", result_of()) if isinstance(b, Table))
    assert max(len(cell) for row in table.rows for cell in row) <= 60


def test_nothing_to_slice_draws_nothing():
    result = said(np.zeros((20, 1)), noise(20, 1), "failures")
    assert figures("failures", result) == {}
    assert any(isinstance(b, Fold) and "not sliced" in b.summary for b in blocks("failures", result))
