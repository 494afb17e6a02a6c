from __future__ import annotations

import torch

from tests.helpers_pages import HOSTILE, blocks, figures
from tests.helpers_scored import noise, said
from torchwatch.report.document import Table


def test_points_have_intervals_and_few_samples_are_rings():
    groups = [f"{HOSTILE} {i % 3}" for i in range(90)] + ["few"] * 3
    y = noise(93, 1)
    result = said(y + noise(93, 1, seed=1), y, "groups", groups=groups)
    drawn = figures("groups", result)
    axes = drawn["groups_metric"].axes[0]
    assert axes.get_xlabel() == "RMSE (unit of the targets)"
    rings = [x for x in axes.get_lines() if x.get_marker() == "o" and x.get_markerfacecolor() == "#ffffff"]
    assert len(rings) == 1
    shares = drawn["groups_variance"].axes[0]
    assert [t.get_text() for t in shares.get_yticklabels()] == [
        "targets",
        "predictions",
        "residuals",
        "errors",
    ]


def test_the_worst_forty_of_many_are_shown_and_that_is_said():
    from torchwatch.report.autopsy.groups import DRAWINGS

    y = noise(600, 1)
    result = said(y + noise(600, 1, seed=1), y, "groups", groups=[i % 100 for i in range(600)])
    axes = figures("groups", result)["groups_metric"].axes[0]
    assert len(axes.get_yticks()) == 40
    assert axes.get_yticklabels()[0].get_text().startswith(result.names[0])
    assert "worst 40 of 100 groups" in DRAWINGS[0].caption(result)
    assert len(next(b for b in blocks("groups", result) if isinstance(b, Table)).rows) == 20


def test_classes_are_called_classes_and_have_no_split_to_draw():
    logits = torch.tensor(noise(60, 3))
    result = said(logits, torch.arange(60) % 3, "groups")
    drawn = figures("groups", result)
    assert set(drawn) == {"groups_metric"}
    assert drawn["groups_metric"].axes[0].get_xlabel() == "accuracy (share of right decisions)"
    assert next(b for b in blocks("groups", result) if isinstance(b, Table)).head[0] == "class"
