"""early-stop-opportunity: the run went on after it was at its best."""

import math

from tests.checks.energy import metered
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "early-stop-opportunity"
OVER = [1.0, 0.8, 0.6, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]


def test_fires_at_the_end_and_names_the_stop():
    alert = assert_fires(SLUG, metered(OVER), severity="info", layer=None, since=(80, 80))
    assert alert.step == 200
    assert alert.title == "The best validation was at step 80 (epoch 3); 60 % of the run came after it"
    assert "6 evaluations later none was better: 120 steps, 6 epochs, 2 min 00 s" in alert.detail
    assert alert.value == 0.6


def test_quiet_while_it_still_gets_better():
    assert_quiet(SLUG, metered([1.0, 0.8, 0.7, 0.6, 0.5, 0.45]))


def test_near_miss_two_evaluations():
    assert_quiet(SLUG, metered([1.0, 0.8, 0.7, 0.6, 0.65, 0.7]))
    assert_fires(SLUG, metered([1.0, 0.8, 0.7, 0.6, 0.65, 0.7]), limits={"evals": 2})


def test_near_miss_the_accuracy_was_best_later():
    rising = [0.1 * i for i in range(10)]
    assert_quiet(SLUG, metered(OVER, others={"val_accuracy": rising}))
    later = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2]
    alert = assert_fires(SLUG, metered(OVER, others={"val_acc_top1": later}))
    assert alert.since_step == 120
    assert "val_acc_top1 was 0.6 there" in alert.detail


def test_a_metric_of_no_known_direction_does_not_count():
    rising = [0.1 * i for i in range(10)]
    assert_fires(
        SLUG, metered(OVER, others={"val_perplexity": rising, "val_runtime": rising}), since=(80, 80)
    )


def test_values_that_are_not_finite_are_no_best():
    assert_fires(SLUG, metered([1.0, 0.5, math.nan, 0.6, 0.7, 0.8]), since=(40, 40))
    assert_quiet(SLUG, metered([math.nan] * 5), ready=False)
