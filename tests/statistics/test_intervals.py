from __future__ import annotations

import pytest
import scipy.stats

from torchwatch.statistics.intervals import central


@pytest.mark.parametrize("level", [0.01, 0.5, 0.8, 0.95, 0.999])
def test_equals_scipy(level):
    assert central(level) == pytest.approx(scipy.stats.norm.interval(level)[1])


@pytest.mark.parametrize("level", [0, 1, -0.5, 2])
def test_levels_outside_are_refused(level):
    with pytest.raises(ValueError, match="within 0"):
        central(level)
