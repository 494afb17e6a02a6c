from __future__ import annotations

import torch
from torch import nn

from tests.helpers_pages import blocks, figures
from torchwatch.postmortem import autopsy
from torchwatch.report.document import Bullets, Table, Text


def examined(depth):
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(6, 6), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(6, 1))
    model[0].requires_grad_(False)
    x = torch.randn(40, 6)
    return autopsy(model, (x, x.sum(1, keepdim=True)), examine=["gradient_flow"])["gradient_flow"]


def test_layers_with_their_gradients():
    result = examined(3)
    left, right = figures("gradient_flow", result)["gradient_flow"].axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["0", "2", "4", "6"]
    assert "RMS" in left.get_xlabel()
    assert right.get_xlabel() == "gradient norm / weight norm"
    found = blocks("gradient_flow", result)
    facts = dict(next(b for b in found if isinstance(b, Bullets)).items)
    assert facts["Layers with a gradient"] == "3 of 3 that want one"
    table = next(b for b in found if isinstance(b, Table))
    assert [row[-1] for row in table.rows] == ["frozen", "flows", "flows", "flows"]


def test_the_worst_forty_of_many_layers_and_zeros_stay_visible():
    result = examined(150)
    figure = figures("gradient_flow", result)["gradient_flow"]
    assert len(figure.axes[0].get_yticks()) == 40
    assert any("worst 40 of 151" in b.text for b in blocks("gradient_flow", result) if isinstance(b, Text))
    assert figure.get_figheight() < 12
