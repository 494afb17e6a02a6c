from __future__ import annotations

import numpy as np
import pytest

from torchwatch.report import heatmap, style
from torchwatch.report.trace import LayerMap


def layers(values: list[list[float]], bad: list[list[bool]] | None = None) -> LayerMap:
    array = np.array(values)
    flags = np.zeros(array.shape, bool) if bad is None else np.array(bad)
    names = tuple(f"layer{i}" for i in range(len(array)))
    return LayerMap(names, np.arange(array.shape[1] + 1) + 0.5, array, flags, len(array))


def test_up_to_forty_layers_are_all_shown():
    shown = heatmap.worst_rows(layers([[1.0]] * 40), {}, high_is_bad=True)
    assert len(shown.names) == 40
    assert heatmap.cut_note(shown) == ""


@pytest.mark.parametrize("high_is_bad", [True, False])
def test_of_many_layers_the_worst_are_shown_in_the_models_order(high_is_bad: bool):
    values = [[float(i)] for i in range(100)]
    values[50] = [np.nan]
    bad = [[False]] * 100
    bad[10] = [True]
    shown = heatmap.worst_rows(layers(values, bad), {"layer60": "warning"}, high_is_bad=high_is_bad)
    numbers = [int(n.removeprefix("layer")) for n in shown.names]
    assert len(numbers) == 40
    assert numbers == sorted(numbers)
    assert {10, 60} < set(numbers)
    assert (99 in numbers) is high_is_bad
    assert (0 in numbers) is not high_is_bad
    assert 50 not in numbers
    assert heatmap.cut_note(shown) == " Shown are the 40 worst of 100 layers."


def test_exact_zeros_lie_below_the_colour_scale_and_stay_apart_from_unmeasured():
    cells, (low, high) = heatmap._log_cells(np.array([[1e-6, 0.0, np.nan, 1.0]]))
    assert (low, high) == (-6.0, 0.0)
    assert cells[0, 1] < low
    assert np.isnan(cells[0, 2])


@pytest.mark.parametrize("row", [[0.0, 0.0], [np.nan, 0.0], [2.0, 2.0], [1e-300, 1e300]])
def test_any_values_can_be_drawn(row: list[float]):
    with style.themed(style.LIGHT):
        drawn = style.figure(2)
        axes = drawn.subplots()
        shown = layers([row], [[True, False]])
        heatmap.draw(drawn, axes, shown, heatmap.Look("a", "b"), style.LIGHT, 2)
        heatmap.name_rows(axes, shown, {"layer0": "critical"}, style.LIGHT)
        assert style.png(drawn).startswith(b"\x89PNG")
    assert axes.get_yticklabels()[0].get_color() == style.LIGHT.critical
