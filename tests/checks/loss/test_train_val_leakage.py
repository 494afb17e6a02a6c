import numpy as np
import pytest

from tests.helpers_checks import assert_fires, assert_quiet, layout, records
from torchwatch.records import Epoch, LayerInfo

SLUG = "train-val-leakage"
LEVELS = [2.0, 1.5, 1.2, 1.0, 0.9, 0.85, 0.8, 0.78, 0.76, 0.75]
ACCURACY = [0.5, 0.61, 0.72, 0.793, 0.8214, 0.84, 0.85, 0.861, 0.872, 0.88]


def run(val=None, levels=LEVELS, noise=0.02, per=20, twin=None, name="accuracy", accuracy=None, **options):
    """Validation at every epoch's end; ``twin`` is logged as the training value ``name`` of the epoch."""
    rng = np.random.default_rng(0)
    loss = np.repeat(levels, per) * (1 + noise * rng.standard_normal(per * len(levels)))
    evals = {}
    for i in range(len(levels)):
        evals[per * (i + 1)] = {"val_loss": val[i]} if val else {}
        if accuracy:
            evals[per * (i + 1)]["val_accuracy"] = accuracy[i]
    body = records(loss, epoch_steps=per, evals=evals, **options)
    for record in body:
        if isinstance(record, Epoch) and twin:
            record.metrics[name] = twin[record.epoch]
    return body


@pytest.mark.parametrize("name", ["accuracy", "train_accuracy"])
def test_equal_metrics_are_a_note(name):
    alert = assert_fires(
        SLUG, run(accuracy=ACCURACY, twin=ACCURACY, name=name), severity="info", since=(20, 40)
    )
    assert alert.metric == "val_accuracy"


def test_values_of_an_epoch_are_compared_when_it_is_over():
    assert_fires(SLUG, run(accuracy=ACCURACY, twin=ACCURACY), since=(20, 20), by=60)


def test_equal_metrics_of_the_step():
    metrics = {"train_accuracy": [ACCURACY[n // 20 - 1] if n % 20 == 0 else None for n in range(1, 201)]}
    assert_fires(SLUG, run(accuracy=ACCURACY, metrics=metrics), since=(20, 20), by=60)


def test_near_miss_equal_to_three_digits_only():
    almost = [v + 1e-4 for v in ACCURACY]
    assert_quiet(SLUG, run(accuracy=ACCURACY, twin=almost))
    assert_fires(SLUG, run(accuracy=ACCURACY, twin=almost), limits={"digits": 2})


def test_near_miss_equal_in_two_of_three():
    twice = [v + (0.01 if i % 3 == 0 else 0) for i, v in enumerate(ACCURACY)]
    assert_quiet(SLUG, run(accuracy=ACCURACY, twin=twice))
    assert_fires(SLUG, run(accuracy=ACCURACY, twin=twice), limits={"evals": 2})


@pytest.mark.parametrize("values", [[1.0] * 10, [0.0] * 10, [0.5] * 10, [0.9, 1.0] * 5])
def test_near_miss_values_that_say_nothing(values):
    assert_quiet(SLUG, run(accuracy=values, twin=values))


LOW = [0.7 * v for v in LEVELS]


def test_a_validation_loss_far_below_the_training_loss():
    alert = assert_fires(SLUG, run(LOW), severity="info")
    assert "below the training loss" in alert.title


def test_near_miss_within_ten_percent():
    close = [0.97 * v for v in LEVELS]
    assert_quiet(SLUG, run(close))
    flat = run([0.95] * 10, [1.0] * 10, noise=0.001)
    assert_quiet(SLUG, flat)
    assert_fires(SLUG, flat, limits={"below": 0.01})


def test_near_miss_validation_at_the_end_of_a_falling_epoch():
    """The mean of an epoch lies above its end; what follows does not."""
    falling = [2.0 * 0.7**i for i in range(10)]
    assert_quiet(SLUG, run([0.75 * v for v in falling], falling))


def test_near_miss_within_noise():
    rng = np.random.default_rng(1)
    val = (0.8 * (1 + 0.3 * rng.standard_normal(10))).tolist()
    assert_quiet(SLUG, run(val, [1.4] * 10))
    assert_fires(SLUG, run(val, [1.4] * 10), limits={"sigmas": 0})


@pytest.mark.parametrize(
    "layer",
    [
        LayerInfo("d", "Dropout", attributes={"p": 0.1}),
        LayerInfo("d", "DropPath", attributes={"drop_prob": 0.1}),
        LayerInfo("d", "StochasticDrop"),
        LayerInfo("d", "LSTM", attributes={"dropout": 0.2}),
    ],
)
def test_near_miss_dropout(layer):
    shape = layout(["0", layer])
    assert_quiet(SLUG, run(LOW, layers=shape))
    assert_fires(SLUG, run(LOW, layers=shape), limits={"dropout": 0})


def test_dropout_that_is_off_is_none():
    assert_fires(SLUG, run(LOW, layers=layout(["0", LayerInfo("d", "Dropout", attributes={"p": 0.0})])))


def test_near_miss_declared_augmentation():
    augmented = run(LOW, declare={"augmentation": True})
    assert_quiet(SLUG, augmented)
    assert_fires(SLUG, augmented, limits={"augmentation": 0})


def test_near_miss_images_are_usually_augmented():
    image = layout([LayerInfo("0", "Conv2d", 10, order=0, inputs=[[8, 3, 32, 32]], outputs=[[8, 4, 30, 30]])])
    assert_quiet(SLUG, run(LOW, layers=image))
    assert_fires(SLUG, run(LOW, layers=image), limits={"augmentation": 0})
    assert_fires(SLUG, run(LOW, layers=image, declare={"augmentation": False}))


def test_near_miss_layers_that_were_not_seen():
    assert_quiet(SLUG, run(LOW, layers=layout([])))


def test_near_miss_warm_up():
    warm = run(LOW, lr=[1e-5 * n for n in range(1, 201)])
    assert_quiet(SLUG, warm)
    assert_fires(SLUG, warm, limits={"warm_up": 0})


def test_a_signed_loss_is_left_alone():
    assert_quiet(SLUG, run([-5.0 - v for v in LEVELS], [-v for v in LEVELS]))


def test_not_ready_with_two_evaluations():
    assert "needs 3" in assert_quiet(SLUG, run([1.0, 0.9], [1.0, 0.9]), ready=False).not_run()[SLUG]
