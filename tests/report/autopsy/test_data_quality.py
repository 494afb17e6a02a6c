from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from tests.helpers_pages import HOSTILE, blocks, figures
from torchwatch.postmortem import autopsy
from torchwatch.report.document import Bullets, Fold, Table


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def examined(x, y, outputs=1, **known):
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), outputs))
    result = autopsy(model, (x, y), examine=["data_quality"], **known)
    return result["data_quality"]


def test_numbers_show_histograms_quantiles_channels_and_lags():
    x, y = noise(100, 50, 8), noise(100, 1)
    x[3, 4, 5] = float("nan")
    x[:, 7] = 0
    y[5] = x[6, 1, 1] = float("inf")
    known = {"channel_names": [f"E{i}" for i in range(50)], "groups": [f"g{i % 3}" for i in range(100)]}
    result = examined(x, y, train_data=(noise(90, 50, 8, seed=1), noise(90, 1, seed=2)), **known)
    drawn = figures("data_quality", result)
    assert set(drawn) == {f"data_quality_{n}" for n in ("targets", "quantiles", "channels", "lags")}
    left, middle, right = drawn["data_quality_channels"].axes
    assert len(left.get_yticks()) == 40
    assert "E7" in [t.get_text() for t in left.get_yticklabels()]
    assert "standard deviations" in middle.get_xlabel()
    assert "training" in right.get_xlabel()
    assert [a.get_title("left") for a in drawn["data_quality_lags"].axes] == ["data", "training data"]
    assert "of the training targets" in drawn["data_quality_quantiles"].axes[0].get_xlabel()
    found = blocks("data_quality", result)
    titles = [b.summary for b in found if isinstance(b, Fold)]
    assert any(t.startswith("By channel (the worst 20 of 50)") for t in titles)
    assert any("NaN" in t for t in titles)
    assert any("Groups of group" in t for t in titles)
    facts = dict(next(b for b in found if isinstance(b, Bullets)).items)
    assert "2 in the inputs, 1 in the targets" in facts["Data"]
    assert "skill" in facts["Linear probe"]


def test_the_histogram_holds_all_values():
    from torchwatch.report.autopsy._data_plots import _passed

    quantiles = np.quantile(noise(5000, 1).numpy(), np.linspace(0, 1, 101))
    assert np.mean(np.clip(_passed(quantiles, quantiles[50]), 0, 1)) == 0.5
    assert np.mean(np.clip(_passed(quantiles, quantiles[-1]), 0, 1)) == 1
    assert np.mean(np.clip(_passed(quantiles, quantiles[0]), 0, 1)) == 0


def test_classes_show_their_shares():
    y = torch.arange(120) % 3
    result = examined(noise(120, 6), y, 4, class_names=["a", HOSTILE, "c", "d"])
    drawn = figures("data_quality", result)
    assert set(drawn) == {f"data_quality_{n}" for n in ("targets", "channels", "lags")}
    table = next(b for b in blocks("data_quality", result) if isinstance(b, Table))
    assert table.head == ["class", "samples", "share"]
    assert [row[1] for row in table.rows] == ["40", "40", "40", "0"]


def test_hostile_names_and_nothing_but_holes_can_be_drawn():
    x = torch.full((30, 5), float("nan"))
    result = examined(x, torch.full((30, 1), float("nan")), task="regression", channel_names=[HOSTILE] * 5)
    assert figures("data_quality", result) == {}
    assert blocks("data_quality", result)
    one = examined(noise(1, 5), noise(1, 1))
    assert set(figures("data_quality", one)) == {"data_quality_channels"}
    bare = dataclasses.replace(one, labels=None, channels=None)
    assert figures("data_quality", bare) == {}
    assert blocks("data_quality", bare)
