"""train-mode-eval: an evaluation with dropout."""

import dataclasses

import pytest
import torch

from tests.checks.wiring.trainings import EVERY, Fit, alerts, batch, entropy, loud, net, opened, said
from tests.helpers_checks import assert_fires, assert_quiet, layout, records
from torchwatch.records import LayerInfo

SLUG = "train-mode-eval"
EVALS = {20: {"val_loss": 1.0}, 40: {"val_loss": 0.9}, 60: {"val_loss": 0.8}}


def shape(p=0.1):
    """With a dropout layer."""
    return layout(["0", LayerInfo("1", "Dropout", 0, order=1, attributes={"p": p}), "2"])


def run(*maps, evals=None, **more):
    """A run in which these steps saw passes without autograd: (step, dropout active, None: none seen)."""
    at = {1: {"training": True}}
    for step, dropout in maps:
        at[step] = {"training": True, **({} if dropout is None else {"evaluation_dropout": dropout})}
    kept = {"layers": shape()} | more
    return records(steps=60, wiring=at.get, evals=evals or EVALS, **kept)


def seen(dropout):
    """All evaluations were seen, and the steps after them."""
    return [(step + i, dropout if not i else None) for step in EVALS for i in (0, 1)]


def test_fires_at_the_first_evaluation():
    assert_fires(SLUG, run(*seen(True)), severity="warning", layer=None, since=(20, 20), by=20)


def test_quiet_in_evaluation_mode():
    assert_quiet(SLUG, run(*seen(False)))


def test_quiet_on_a_model_without_dropout():
    assert_quiet(SLUG, run(*seen(True), layers=layout()))
    assert_quiet(SLUG, run(*seen(True), layers=shape(p=0.0)))


def test_not_ready_where_no_evaluation_was_seen():
    engine = assert_quiet(SLUG, run(), ready=False)
    assert "no pass of an evaluation" in engine.not_run()[SLUG]


def test_what_was_seen_at_the_last_evaluation_holds_until_another_is_seen():
    alert = assert_fires(SLUG, run((20, True), (21, None), (60, False)), since=(20, 20))
    assert alert.step == 20


def test_near_miss_such_passes_are_part_of_the_training():
    maps = [(step, True) for step in (5, 20, 35, 40)]
    maps += [(step + 1, None) for step, _ in maps]
    assert_quiet(SLUG, run(*maps), ready=False)
    assert_fires(SLUG, run(*maps), limits={"elsewhere": 0})


def test_what_follows_an_evaluation_belongs_to_it():
    assert_fires(SLUG, run((21, True), (22, None), (40, True), (41, None)), since=(40, 40), by=40)


@pytest.mark.parametrize("declared", ["mc_dropout", "reinforcement"])
def test_near_miss_declared(declared):
    assert_quiet(SLUG, run(*seen(True), declare={declared: True}))
    assert_fires(SLUG, run(*seen(True), declare={declared: True}), limits={"declared": 0})


def test_limit_of_evaluations():
    assert_fires(SLUG, run(*seen(True)), limits={"evals": 3}, since=(20, 20), by=60)
    assert_quiet(SLUG, run((20, True), (21, None), (40, False), (41, None)), limits={"evals": 2}, ready=False)


# ------------------------------------------------------------------------------------------ real trainings


def validated(model, right, elsewhere=False, **options):
    def after(watch, number):
        if number % 8 == 0:
            model.train(not right)
            with torch.no_grad():
                watch.log(val_loss=entropy(model, *batch(100)))
            model.train()

    def loss(model, x, y):
        if elsewhere:
            with torch.no_grad():
                hard = model(x).max(1).values.argsort()[:16]
            x, y = x[hard], y[hard]
        return entropy(model, x, y)

    return Fit(model, after=after, loss=loss, **options)


def test_an_evaluation_without_eval(tmp_path):
    model = net()
    alert = opened(alerts(tmp_path / "r.jsonl", model, validated(model, right=False), EVERY), SLUG)
    assert (alert.severity, alert.since_step, alert.step) == ("warning", 8, 8)


def test_one_at_the_end_of_each_epoch(tmp_path):
    model = net()

    def body(watch):
        for _ in range(3):
            Fit(model, steps=8)(watch)
            with torch.inference_mode():
                watch.epoch(val_loss=entropy(model, *batch(100)))

    alert = opened(alerts(tmp_path / "r.jsonl", model, body, EVERY), SLUG)
    assert alert.since_step == 8


def test_quiet_on_its_twin(tmp_path):
    model = net()
    assert loud(alerts(tmp_path / "r.jsonl", model, validated(model, right=True), EVERY)) == []


def test_quiet_where_hard_examples_are_chosen_in_training_mode(tmp_path):
    model = net()
    found = alerts(tmp_path / "r.jsonl", model, validated(model, right=True, elsewhere=True), EVERY)
    assert loud(found) == []


def test_declared_monte_carlo_dropout(tmp_path):
    model = net()
    config = dataclasses.replace(EVERY, declare={"mc_dropout": True})
    found = alerts(tmp_path / "r.jsonl", model, validated(model, right=False), config)
    assert said(found, SLUG) == []
