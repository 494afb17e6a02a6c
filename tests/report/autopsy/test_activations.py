from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import nn

from tests.helpers_pages import HOSTILE, blocks, figures
from torchwatch.postmortem import autopsy
from torchwatch.report.document import Fold, Table, Text


def examined(depth, *, dead=False):
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Linear(6, 1))
    if dead:
        with torch.no_grad():
            model[0].weight[:4] = 0
            model[0].bias[:4] = -1
    x = torch.randn(40, 6)
    return autopsy(model, (x, x.sum(1, keepdim=True)), examine=["activations"])["activations"]


def test_level_shares_and_geometry_of_each_layer():
    result = examined(1, dead=True)
    level, shares, geometry = figures("activations", result)["activations"].axes
    assert [t.get_text() for t in level.get_yticklabels()] == ["0", "1", "2", "3", "4"]
    assert [t.get_text() for t in shares.get_legend().get_texts()] == [
        "dead",
        "dormant",
        "saturated",
        "zeros",
    ]
    assert [t.get_text() for t in geometry.get_legend().get_texts()] == ["rank / possible", "CKA with next"]
    found = blocks("activations", result)
    table = next(b for b in found if isinstance(b, Table))
    assert len(table.rows) == 5
    fold = next(b for b in found if isinstance(b, Fold))
    assert fold.blocks[0].rows[0][0] == "1"
    assert fold.blocks[0].rows[0][2].startswith("0, 1, 2, 3")


def test_the_worst_forty_of_many_layers():
    result = examined(40)
    figure = figures("activations", result)["activations"]
    assert len(figure.axes[0].get_yticks()) == 40
    assert any("worst 40 of 161" in b.text for b in blocks("activations", result) if isinstance(b, Text))


def test_hostile_names_and_holes():
    result = examined(1)
    nothing = np.full(len(result.layers), np.nan)
    odd = dataclasses.replace(
        result, layers=(HOSTILE,) * 5, mean=nothing, std=nothing, effective_rank=nothing, cka=nothing
    )
    assert set(figures("activations", odd)) == {"activations"}
    assert blocks("activations", odd)
