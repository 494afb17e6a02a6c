import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records
from torchwatch.records import Eval

SLUG = "class-ignored"
COMMON = {"a": 0.95, "b": 0.9, "c": 0.92}


def run(each, **options):
    evals = {10 * (i + 1): m for i, m in enumerate(each)}
    return records([1.0] * 10 * len(each), **{"evals": evals} | options)


def recalls(per_class, base="val_recall", **others):
    return {f"{base}.{k}": v for k, v in per_class.items()} | others


IGNORED = [recalls(COMMON | {"rare": 0.01})] * 8


@pytest.mark.parametrize("base", ["val_recall", "val_accuracy", "eval_recall_per_class", "test_sensitivity"])
def test_a_note_at_first_and_a_warning_when_it_stays(base):
    each = [recalls(COMMON | {"rare": 0.01}, base)] * 8
    assert_fires(SLUG, run(each), severity="info", by=30, since=(10, 10))
    alert = assert_fires(SLUG, run(each), severity="warning", by=60, since=(10, 10))
    assert "rare" in alert.title
    assert alert.metric == f"{base}.rare"
    assert alert.value == 0.01


def with_losses(val, train):
    each = [recalls(COMMON | {"rare": 0.01}, val_loss=v) for v in val]
    losses = np.repeat(np.asarray(train, float), 10)
    return records(losses, evals={10 * (i + 1): m for i, m in enumerate(each)})


def test_a_warning_at_once_where_training_goes_on_and_validation_does_not():
    each = with_losses([0.62, 0.61, 0.63, 0.64], [0.5, 0.3, 0.2, 0.15])
    assert_fires(SLUG, each, severity="warning", by=30, since=(10, 10))


@pytest.mark.parametrize(
    ("val", "train"),
    [([0.62, 0.55, 0.5, 0.45], [0.5, 0.3, 0.2, 0.15]), ([0.62, 0.61, 0.63, 0.64], [0.5, 0.5, 0.5, 0.5])],
)
def test_near_miss_both_fall_or_both_stand_still(val, train):
    assert_quiet(SLUG, with_losses(val, train), allow_info=True)


def test_shares_may_be_percent():
    each = [recalls({k: 100 * v for k, v in COMMON.items()} | {"rare": 1.0})] * 8
    assert assert_fires(SLUG, run(each), severity="warning").value == pytest.approx(0.01)


def test_overall_accuracy_counts_where_it_is_logged():
    each = [recalls({"big": 1.0, "x": 0.0, "y": 0.0, "z": 0.1}, val_accuracy=0.93)] * 8
    assert_fires(SLUG, run(each), severity="warning")
    low = [recalls({"big": 1.0, "x": 0.0, "y": 0.0, "z": 0.1}, val_accuracy=0.3)] * 8
    assert_quiet(SLUG, run(low))
    apart = run([recalls({"big": 1.0, "x": 0.0, "y": 0.0, "z": 0.1})] * 8)
    before = [
        r
        for e in apart
        for r in ([Eval(e.step, metrics={"val_acc": 0.9}), e] if isinstance(e, Eval) else [e])
    ]
    assert_fires(SLUG, before, severity="warning")


def test_one_class_is_all_that_is_found():
    assert_fires(SLUG, run([recalls({"a": 1.0, "b": 0.0, "c": 0.01})] * 8), severity="warning")


def test_near_miss_seven_percent():
    each = [recalls(COMMON | {"rare": 0.07})] * 8
    assert_quiet(SLUG, run(each))
    assert_fires(SLUG, run(each), limits={"recall": 0.1})


def test_near_miss_overall_below_half():
    each = [recalls({"a": 0.6, "b": 0.5, "c": 0.4, "d": 0.01})] * 8
    assert_quiet(SLUG, run(each))
    assert_fires(SLUG, run(each), limits={"overall": 0.3})


def test_near_miss_two_evaluations_in_a_row():
    seen, not_seen = recalls(COMMON | {"rare": 0.3}), recalls(COMMON | {"rare": 0.0})
    assert_quiet(SLUG, run([not_seen, not_seen, seen] * 4))
    assert_fires(SLUG, run([not_seen, not_seen, seen] * 4), limits={"evals": 2})


def test_near_miss_another_class_each_time():
    each = [recalls(COMMON | {"rare": 0.5, name: 0.0}) for name in "abcabcabc"]
    assert_quiet(SLUG, run(each))


def test_only_noted_while_the_whole_improves():
    each = [recalls({"a": 0.7 + 0.02 * i, "b": 0.7 + 0.02 * i, "c": 0.0}) for i in range(10)]
    assert_quiet(SLUG, run(each), allow_info=True, limits={"overall": 0.4})
    assert_fires(SLUG, run(each), severity="warning", limits={"overall": 0.4, "improvement": 0})


def test_only_noted_while_the_class_comes():
    each = [recalls(COMMON | {"rare": 0.004 * i}) for i in range(10)]
    assert_quiet(SLUG, run(each), allow_info=True)


def test_only_noted_among_many_classes():
    many = {f"c{i}": 0.8 for i in range(150)} | {"hard": 0.0}
    assert_quiet(SLUG, run([recalls(many)] * 8), allow_info=True)
    assert_fires(SLUG, run([recalls(many)] * 8), severity="warning", limits={"most_classes": 200})


def test_patience_is_honoured():
    assert_quiet(SLUG, run(IGNORED), allow_info=True, limits={"patience": 9})
    assert_fires(SLUG, run(IGNORED), severity="warning", by=30, limits={"patience": 3})


def test_a_class_that_is_found_again_resolves():
    each = [*IGNORED, recalls(COMMON | {"rare": 0.5})]
    assert_fires(SLUG, run(each))
    engine = assert_quiet(SLUG, run([recalls(COMMON | {"rare": 0.5})] * 8))
    assert not engine.issues


TARGETS = {"loss": "cross_entropy", "largest_share": 0.3}
SAME = [{"val_predictions.a": 980.0, "val_predictions.b": 15.0, "val_predictions.c": 5.0}] * 8


def test_predictions_of_one_class():
    assert_fires(SLUG, run(SAME, targets=TARGETS), severity="warning", since=(10, 10), by=60)
    assert_fires(SLUG, run(SAME), severity="info")
    assert_quiet(SLUG, run(SAME), allow_info=True)


def test_near_miss_predictions_as_the_targets_are():
    assert_quiet(SLUG, run(SAME, targets=TARGETS | {"largest_share": 0.9}))
    assert_fires(SLUG, run(SAME, targets=TARGETS | {"largest_share": 0.9}), limits={"largest_share": 0})


def test_near_miss_predictions_of_several_classes():
    assert_quiet(SLUG, run([{"val_predictions.a": 0.9, "val_predictions.b": 0.1}] * 8, targets=TARGETS))


def test_not_ready_without_values_per_class():
    for each in ([{"val_loss": 1.0}] * 4, [{"val_iou.a": 0.5, "val_iou.b": 0.0}] * 4):
        engine = assert_quiet(SLUG, run(each), ready=False)
        assert "per class" in engine.not_run()[SLUG]


def coming(rng, start, evaluation):
    """Recall of a class that begins to be found at ``start``."""
    level = 0.9 - 0.9 * np.exp(-max(0.0, evaluation - start) / 3)
    return float(np.clip(level + 0.02 * rng.standard_normal(), 0, 1))


def test_healthy_recalls_that_come_one_after_the_other():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        starts = dict(enumerate(rng.uniform(0, 6, 10)))
        each = [recalls({str(k): coming(rng, s, e) for k, s in starts.items()}) for e in range(30)]
        assert_quiet(SLUG, run(each), allow_info=True)
