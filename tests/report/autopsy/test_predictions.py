from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers_pages import HOSTILE, blocks, figures
from tests.helpers_scored import noise, said
from torchwatch.report.document import Bullets, Table


def test_one_output_has_a_row_and_two_panels_of_one_range():
    y = noise(80, 1)
    result = said(0.2 * y, y + noise(80, 1, seed=1), "predictions")
    table = next(b for b in blocks("predictions", result) if isinstance(b, Table))
    assert len(table.rows) == 1
    assert table.rows[0][-1] == "over-shrunk"
    drawn = figures("predictions", result)
    assert set(drawn) == {"predictions_scatter"}
    left, right = drawn["predictions_scatter"].axes
    assert left.get_xlim() == left.get_ylim()
    assert left.get_xlabel() == right.get_xlabel() == "prediction (unit of the target)"
    assert right.get_ylabel() == "residual (target − prediction)"
    assert left.get_title(loc="left").startswith("slope ")


def test_many_points_become_a_density():
    y = noise(2000, 1)
    drawn = figures("predictions", said(y + noise(2000, 1, seed=1), y, "predictions"))["predictions_scatter"]
    assert len(drawn.axes) == 4
    assert drawn.axes[2].get_ylabel() == "samples per cell"


def test_of_many_outputs_the_worst_are_shown_and_that_is_said():
    from torchwatch.report.autopsy.predictions import DRAWINGS

    y = noise(60, 90)
    result = said(y + np.arange(90) / 20 * noise(60, 90, seed=1), y, "predictions")
    drawn = figures("predictions", result)
    labels = [t.get_text() for t in drawn["predictions_outputs"].axes[0].get_yticklabels()]
    assert len(labels) == 40
    assert "output 89" in labels[:10]
    captions = {d.name: d.caption(result) for d in DRAWINGS}
    assert "worst 40 of 90 outputs" in captions["predictions_outputs"]
    assert "worst 4 of 90 outputs" in captions["predictions_scatter"]
    table = next(b for b in blocks("predictions", result) if isinstance(b, Table))
    assert len(table.rows) == 20


@pytest.mark.parametrize("classes", [3, 60])
def test_confusion_has_a_cell_for_each_pair(classes):
    logits = torch.tensor(noise(400, classes))
    names = [HOSTILE, *map(str, range(1, classes))]
    result = said(logits, torch.arange(400) % classes, "predictions", class_names=names)
    axes = figures("predictions", result)["predictions_confusion"].axes[0]
    assert axes.images[0].get_array().shape == (min(classes, 40),) * 2
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert len(axes.texts) == (9 if classes == 3 else 0)
    facts = next(b for b in blocks("predictions", result) if isinstance(b, Bullets))
    assert facts.items[0][0] == "Accuracy"


def test_labels_have_no_confusion_matrix():
    result = said(noise(40, 3), (noise(40, 3, seed=1) > 0).astype(float), "predictions")
    assert figures("predictions", result) == {}
    assert blocks("predictions", result)


@pytest.mark.parametrize(
    ("p", "y"),
    [
        (np.zeros((20, 1)), np.full((20, 1), 2.0)),
        (np.ones((1, 1)), np.full((1, 1), 2.5)),
        (np.full((20, 1), np.nan), noise(20, 1)),
        (np.full((20, 1), 1e30), noise(20, 1)),
    ],
)
def test_degenerate_results_are_drawn_or_left_out(p, y):
    result = said(p, y, "predictions")
    figures("predictions", result)
    blocks("predictions", result)
