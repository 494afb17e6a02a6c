from __future__ import annotations

from torchwatch.report import style
from torchwatch.report.plots import loss


def axes_of(report, number: int = 0):
    with style.themed(style.LIGHT):
        return loss.draw(report, style.LIGHT).axes[number]


def test_train_median_and_validation_are_lines_with_names(report_of):
    axes = axes_of(report_of("faulty"))
    names = [t.get_text() for t in axes.get_legend().get_texts()]
    assert names == ["train", "train, median of 18 steps", "val_loss"]
    train = axes.get_lines()[0]
    assert len(train.get_xdata()) == 360
    assert axes.get_ylabel() == "loss"


def test_incidents_are_numbered_at_their_onset(report_of):
    report = report_of("faulty")
    axes = axes_of(report)
    assert {t.get_text() for t in axes.texts} == {str(m.number) for m in report.marks}
    at = {line.get_xdata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 2}
    assert {m.step for m in report.marks} <= at


def test_nan_losses_are_marked_where_they_begin(report_of):
    axes = axes_of(report_of("crashed"))
    crosses = next(x for x in axes.get_lines() if x.get_label() == "loss NaN or ∞ (161×)")
    assert list(crosses.get_xdata()) == [200.0]


def test_learning_rate_has_its_own_panel(report_of):
    assert axes_of(report_of("healthy"), 1).get_ylabel() == "learning rate"
    assert axes_of(report_of("healthy"), 1).get_xlabel() == "step"


def test_caption_speaks_only_of_what_is_there(report_of):
    assert "evaluations" in loss.caption(report_of("healthy"))
    assert "Numbered" not in loss.caption(report_of("healthy"))
    assert "evaluations" not in loss.caption(report_of("no-columns"))
    assert "Numbered" in loss.caption(report_of("faulty"))
