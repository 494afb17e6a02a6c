import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records

SLUG = "forgetting"
OLD = [0.3, 0.6, 0.8, 0.9, 0.92, 0.91, 0.7, 0.5, 0.4, 0.35, 0.3, 0.3]
NEW = [0.1, 0.1, 0.12, 0.1, 0.1, 0.11, 0.4, 0.7, 0.8, 0.85, 0.9, 0.9]


def run(names, *each, noise=0.005, seed=0):
    rng = np.random.default_rng(seed)
    evals = {}
    for i, values in enumerate(zip(*each, strict=True)):
        evals[10 * (i + 1)] = {
            n: v * (1 + noise * rng.standard_normal()) for n, v in zip(names, values, strict=True)
        }
    return records([1.0] * 10 * len(each[0]), evals=evals)


def per_set(old=OLD, new=NEW, base="val_accuracy", **options):
    return run([f"{base}.old", f"{base}.new"], old, new, **options)


def test_one_set_is_lost_while_another_is_learned():
    alert = assert_fires(SLUG, per_set(), severity="warning", since=(40, 60))
    assert "val_accuracy.old fell from 0.9" in alert.title
    assert "val_accuracy.new got better" in alert.detail


def test_losses_are_read_the_other_way_round():
    old, new = [3 - 2 * v for v in OLD], [3 - 2 * v for v in NEW]
    alert = assert_fires(SLUG, per_set(old, new, "val_loss"), severity="warning", since=(40, 60))
    assert "val_loss.old fell from 1.1" in alert.title
    assert_quiet(SLUG, per_set(new, [1.0] * 12, "val_loss"))


def test_sets_in_the_names():
    names = ["eval_old_accuracy", "eval_old_runtime", "eval_new_accuracy", "eval_new_runtime"]
    assert_fires(SLUG, run(names, OLD, [1.0] * 12, NEW, [1.0] * 12), severity="warning")


def test_near_miss_parts_of_one_loss():
    part = [0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.35, 0.4, 0.45, 0.5, 0.5, 0.5]
    other = [3.0 - 0.2 * i for i in range(12)]
    run_ = run(["val_box_loss", "val_cls_loss", "val_accuracy"], part, other, NEW)
    assert_quiet(SLUG, run_, ready=False)


def test_near_miss_fifteen_percent():
    old = [0.3, 0.6, 0.8, 0.9, 0.9, 0.9, 0.85, 0.8, 0.78, 0.77, 0.77, 0.77]
    assert_quiet(SLUG, per_set(old))
    assert_fires(SLUG, per_set(old), limits={"fall": 0.1})


def test_near_miss_no_other_set_gets_better():
    assert_quiet(SLUG, per_set(new=[0.5] * 12))
    assert_quiet(SLUG, per_set(new=OLD))


def test_near_miss_another_set_gains_three_percent():
    steady = per_set(new=[*[0.8] * 6, *[0.825] * 6], noise=0.0)
    assert_quiet(SLUG, steady)
    assert_fires(SLUG, steady, limits={"other": 0.02})


def test_near_miss_it_came_back():
    old = [*OLD[:9], 0.9, 0.9, 0.9]
    assert_quiet(SLUG, per_set([*OLD[:5], 0.5, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9]))
    assert_fires(SLUG, per_set(old), by=90)


def test_near_miss_within_noise():
    rng = np.random.default_rng(0)
    old = np.clip(0.6 + 0.2 * rng.standard_normal(40), 0.05, 1).tolist()
    old[-3:] = [0.4, 0.35, 0.4]
    new = np.linspace(0.1, 0.9, 40).tolist()
    assert_quiet(SLUG, per_set(old, new))
    assert_fires(SLUG, per_set(old, new), limits={"sigmas": 0})


def test_near_miss_one_lucky_evaluation_at_first():
    old = [0.95, 0.5, 0.5, 0.55, 0.5, 0.52, 0.5, 0.5, 0.5, 0.51, 0.5, 0.5]
    assert_quiet(SLUG, per_set(old))


def test_evals_are_honoured():
    assert_quiet(SLUG, per_set([*OLD[:7], 0.5, 0.9, 0.5, 0.5, 0.9]))
    assert_fires(SLUG, per_set([*OLD[:7], 0.5, 0.9, 0.5, 0.5, 0.9]), limits={"evals": 1})


def test_classes_are_notes():
    classes = per_set(base="val_recall")
    assert_quiet(SLUG, classes, allow_info=True)
    assert_fires(SLUG, classes, severity="info")
    assert_fires(SLUG, classes, severity="warning", limits={"classes": 0})


def test_the_gain_of_the_other_is_honoured():
    assert_quiet(SLUG, per_set(), limits={"other": 20.0})


@pytest.mark.parametrize("each", [["val_loss", "val_accuracy"], ["val_accuracy.only"]])
def test_not_ready_with_one_set(each):
    engine = assert_quiet(SLUG, run(each, *[OLD] * len(each)), ready=False)
    assert "two or more sets" in engine.not_run()[SLUG]


def test_healthy_classes_trade_places():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        drift = np.cumsum(0.3 * rng.standard_normal((30, 4)), axis=0) * np.exp(-np.arange(30) / 8)[:, None]
        logit = drift + 3 * (1 - np.exp(-np.arange(30) / 5))[:, None]
        values = 1 / (1 + np.exp(-logit))
        assert_quiet(SLUG, run([f"val_accuracy.{k}" for k in "abcd"], *values.T.tolist(), noise=0.02))
