from __future__ import annotations

import numpy as np

from tests.helpers_pages import blocks, figures
from tests.helpers_scored import noise, said
from torchwatch.report.document import Table, Text


def test_each_metric_has_two_bars_and_each_baseline_its_skill():
    y = noise(80, 1)
    result = said(y + noise(80, 1, seed=1), y, "baselines")
    first, second, skills = figures("baselines", result)["baselines_bars"].axes
    assert [first.get_xlabel(), second.get_xlabel()] == ["mean squared error", "mean absolute error"]
    assert [t.get_text() for t in first.get_yticklabels()] == ["mean (oracle)", "model"]
    assert [b.get_width() for b in first.patches] == [result["mean"].error, result["mean"].model_error]
    assert [t.get_text() for t in skills.get_yticklabels()] == ["against the mean", "against the median"]


def test_the_table_says_what_they_were_fitted_on():
    y = noise(80, 1)
    found = blocks("baselines", said(y, y + 0.1, "baselines"))
    table = next(b for b in found if isinstance(b, Table))
    assert [row[0] for row in table.rows] == ["mean", "median"]
    assert any(isinstance(b, Text) and "oracle" in b.text for b in found)


def test_without_any_skill_nothing_is_drawn():
    result = said(noise(30, 1), np.full((30, 1), 2.5), "baselines")
    assert figures("baselines", result) == {}
    assert blocks("baselines", result)
