"""eval-mode-training: training steps in evaluation mode."""

import dataclasses

import torch

from tests.checks.wiring.trainings import Fit, alerts, batch, entropy, loud, net, opened, said
from tests.helpers_checks import assert_fires, assert_quiet, layout, records, run_check
from torchwatch.records import LayerInfo

SLUG = "eval-mode-training"


def shape(trainable=True):
    """Linear, batch norm, dropout, linear."""
    norm = LayerInfo("1", "BatchNorm1d", 0, order=1, attributes={"track_running_stats": True})
    drop = LayerInfo("2", "Dropout", 0, order=2, attributes={"p": 0.1})
    base = layout(["0", norm, drop, "3"])
    parameters = [
        dataclasses.replace(p, trainable=trainable or p.name == "3.weight", shape=[16, 16 if i else 64])
        for i, p in enumerate(base.parameters)
    ]
    return dataclasses.replace(base, parameters=parameters)


def modes(*maps, steps=40, **more):
    """A run with these maps at these steps: (step, training, layers in evaluation mode)."""
    at = {s: {"training": t, **({"eval_layers": e} if e else {})} for s, t, e in maps}
    kept = {"columns": {"weight_norms": 1.0}, "layers": shape()} | more
    return records(steps=steps, wiring=at.get, **kept)


def test_fires_at_once_when_validation_left_the_model_in_evaluation_mode():
    run = modes((1, True, []), (21, False, [1, 2]))
    alert = assert_fires(SLUG, run, severity="warning", layer=None, since=(21, 21), by=21)
    assert "1 (BatchNorm1d), 2 (Dropout)" in alert.detail


def test_fires_within_a_line_of_many_steps():
    assert_fires(SLUG, modes((1, True, []), (21, False, [1, 2]), batched=40), since=(21, 21))


def test_only_some_layers_are_an_info():
    alert = assert_fires(SLUG, modes((1, True, [1])), severity="info", since=(1, 1))
    assert "1 layer with a mode is" in alert.title
    assert_quiet(SLUG, modes((1, False, [1])), allow_info=True)
    assert_quiet(SLUG, modes((1, True, [1, 2])), allow_info=True)


def test_the_onset_is_that_of_the_whole_model():
    assert_fires(SLUG, modes((1, True, [1]), (10, False, [1, 2])), severity="warning", since=(1, 10), by=10)


def test_quiet_in_training_mode_and_on_models_without_a_mode():
    assert_quiet(SLUG, modes((1, True, [])))
    assert_quiet(SLUG, modes((1, False, [])))


def test_resolved_when_the_mode_is_put_right():
    _, alerts_ = run_check(SLUG, modes((1, True, []), (5, False, [1, 2]), (9, True, [])))
    assert [a.state for a in alerts_] == ["opened", "resolved"]


def test_what_lasts_stays_open_and_is_resolved_late():
    run = modes((1, True, []), (100, False, [1, 2]), (380, True, []), steps=400)
    engine, found = run_check(SLUG, run)
    assert [(a.state, a.step) for a in found] == [("opened", 100), ("resolved", 389)]
    assert engine.issues[0].last_step == 350  # looked at again at the end of each interval of 50


def test_near_miss_a_frozen_backbone():
    run = modes((1, False, [1, 2]), layers=shape(trainable=False))
    assert_quiet(SLUG, run, allow_info=True)
    assert_fires(SLUG, run, severity="info")
    assert_fires(SLUG, run, severity="warning", limits={"trained_share": 0})


def test_near_miss_declared_fine_tuning():
    run = modes((1, False, [1, 2]), declare={"fine_tuning": True})
    assert_quiet(SLUG, run, allow_info=True)
    assert_fires(SLUG, run, severity="warning", limits={"fine_tuning": 0})


def test_limit_of_looks():
    run = modes((1, True, []), (5, False, [1, 2]), (6, True, []))
    assert_fires(SLUG, run)
    assert_quiet(SLUG, run, limits={"looks": 2})


# ------------------------------------------------------------------------------------------ real trainings


def validated(model, forget):
    def after(watch, number):
        if number % 12 == 0:
            model.eval()
            with torch.no_grad():
                watch.log(val_loss=entropy(model, *batch(100)))
            if not forget:
                model.train()

    return Fit(model, after=after)


def test_a_validation_that_forgets_to_go_back(tmp_path):
    model = net()
    alert = opened(alerts(tmp_path / "r.jsonl", model, validated(model, forget=True)), SLUG)
    assert alert.severity == "warning"
    assert alert.since_step == alert.step == 20  # the first sampled step after it


def test_a_model_that_never_was_in_training_mode(tmp_path):
    model = net().eval()
    alert = opened(alerts(tmp_path / "r.jsonl", model, Fit(model)), SLUG)
    assert (alert.severity, alert.since_step, alert.step) == ("warning", 1, 1)


def test_quiet_on_its_twin_and_without_anything_that_has_a_mode(tmp_path):
    model = net()
    assert loud(alerts(tmp_path / "a.jsonl", model, validated(model, forget=False))) == []
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 4)).eval()
    assert said(alerts(tmp_path / "b.jsonl", model, Fit(model)), SLUG) == []


def test_a_frozen_norm_is_only_noted(tmp_path):
    model = net()
    found = alerts(tmp_path / "r.jsonl", model, Fit(model, before=lambda _: model[1].eval()))
    assert [a.severity for a in found if a.check == SLUG] == ["info"]


def test_adversarial_examples_made_in_evaluation_mode_are_only_noted(tmp_path):
    model = net()

    def against(model, x, y):
        model.eval()
        x = x.clone().requires_grad_()
        (push,) = torch.autograd.grad(entropy(model, x, y), x)
        model.train()
        return entropy(model, (x + 0.1 * push.sign()).detach(), y)

    found = alerts(tmp_path / "r.jsonl", model, Fit(model, loss=against))
    assert loud(found) == []
