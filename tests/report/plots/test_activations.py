from __future__ import annotations

import numpy as np

from torchwatch.report import style
from torchwatch.report.plots import activations


def axes_of(report):
    with style.themed(style.LIGHT):
        return activations.draw(report, style.LIGHT).axes


def test_dead_and_zero_share_their_rows(report_of):
    dead, zero = axes_of(report_of("faulty"))[:2]
    assert dead.get_title(loc="left") == "Dead units"
    assert zero.get_title(loc="left") == "Zero outputs"
    assert dead.get_ylim() == zero.get_ylim()
    labels = {t.get_text(): t.get_color() for t in dead.get_yticklabels()}
    assert labels["relu2"] == style.LIGHT.warning
    assert labels["relu1"] == style.LIGHT.ink


def test_layers_without_units_are_unmeasured_not_alive(report_of):
    dead = activations._maps(report_of("faulty"))["dead"]
    assert np.isnan(dead.values[dead.names.index("conv1")]).all()
    assert dead.values[dead.names.index("relu2"), -1] == 1.0


def test_of_many_layers_those_with_dead_units_are_kept(report_of):
    assert "relu2" in activations._maps(report_of("wide"))["dead"].names


def test_nothing_recorded_draws_nothing(report_of):
    assert activations.draw(report_of("no-columns"), style.LIGHT) is None
