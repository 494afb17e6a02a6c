from __future__ import annotations

import torch
from torch import nn

from tests.helpers_pages import blocks, figures
from tests.helpers_scored import noise, said
from torchwatch.postmortem import autopsy
from torchwatch.report.document import Fold, Table


def examined(outputs: int, y: torch.Tensor):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.4), nn.Linear(16, outputs))
    x = torch.tensor(noise(len(y), 4)).float()
    return autopsy(model, (x, y), examine=["uncertainty"])["uncertainty"]


def test_regression_shows_coverage_and_error_by_spread():
    result = examined(1, torch.tensor(noise(120, 1)).float())
    drawn = figures("uncertainty", result)
    assert set(drawn) == {"uncertainty_coverage"}
    left, right = drawn["uncertainty_coverage"].axes
    assert [t.get_text() for t in left.get_legend().get_texts()] == [
        "calibrated", "dropout alone", "with the residuals' noise",
    ]  # fmt: skip
    assert right.get_xlabel() == "standard deviation over the passes (unit of the target)"
    found = blocks("uncertainty", result)
    assert [row[0] for b in found if isinstance(b, Table) for row in b.rows] == [
        "50 %",
        "80 %",
        "90 %",
        "95 %",
    ]
    assert isinstance(found[-1], Fold)


def test_classes_show_two_reliability_diagrams_and_the_entropy():
    result = examined(3, torch.arange(120) % 3)
    drawn = figures("uncertainty", result)
    assert set(drawn) == {"uncertainty_reliability", "uncertainty_entropy"}
    upper, lower = drawn["uncertainty_reliability"].axes
    assert len(upper.get_legend().get_texts()) == 3
    assert lower.get_xlabel() == "confidence (probability of the predicted class)"
    names = [t.get_text() for t in drawn["uncertainty_entropy"].axes[0].get_legend().get_texts()]
    assert [n.split()[0] for n in names] == ["right", "wrong"]


def test_without_dropout_the_models_own_diagram_is_left():
    result = said(torch.tensor(noise(90, 3)), torch.arange(90) % 3, "uncertainty")
    assert set(figures("uncertainty", result)) == {"uncertainty_reliability"}
    assert len(blocks("uncertainty", result)) == 3


def test_one_sample_has_nothing_to_draw():
    assert figures("uncertainty", examined(1, torch.zeros(1, 1) + 0.5)) == {}
