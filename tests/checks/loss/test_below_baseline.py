import pytest

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check

SLUG = "below-baseline"
RISING = [0.3, 0.5, 0.6, 0.65, 0.7]
FLAT = [0.3, 0.5, 0.6, 0.7, 0.69, 0.7, 0.68, 0.7]


def run(values, baseline, name="val_accuracy", **declared):
    evals = {10 * (i + 1): {name: v} for i, v in enumerate(values)}
    declare = ({} if baseline is None else {"baseline": baseline}) | declared
    return records([1.0] * 10 * len(values), evals=evals, declare=declare)


def test_a_run_that_stands_still_below_its_baseline():
    alert = assert_fires(SLUG, run(FLAT, {"val_accuracy": 0.9}), severity="warning", since=(40, 40), by=70)
    assert alert.value == 0.7
    assert alert.threshold == pytest.approx(0.81)


def test_only_noted_while_it_improves():
    assert_quiet(SLUG, run(RISING, {"val_accuracy": 0.9}), allow_info=True)
    assert_fires(SLUG, run(RISING, {"val_accuracy": 0.9}), severity="info")
    assert_fires(SLUG, run(RISING, {"val_accuracy": 0.9}), severity="warning", limits={"patience": 0})


def test_a_warning_at_the_end_of_the_planned_steps():
    assert_fires(SLUG, run(RISING, {"val_accuracy": 0.9}, planned_steps=50), severity="warning", by=50)
    assert_quiet(SLUG, run(RISING, {"val_accuracy": 0.9}, planned_steps=100), allow_info=True)


def test_errors_and_losses_are_read_the_other_way_round():
    loss = [2.0, 1.0, 0.6, 0.5, 0.51, 0.5, 0.52, 0.5]
    assert_fires(SLUG, run(loss, {"val_loss": 0.4}, "val_loss"), severity="warning")
    assert_quiet(SLUG, run(loss, {"val_loss": 0.46}, "val_loss"))
    negative = [-v for v in FLAT]
    assert_quiet(SLUG, run(negative, {"val_elbo": -0.31}, "val_elbo"))
    assert_fires(SLUG, run(negative, {"val_elbo": -0.25}, "val_elbo"), severity="warning")


def test_near_miss_just_above_nine_tenths():
    assert_quiet(SLUG, run(FLAT, {"val_accuracy": 0.77}))
    assert_fires(SLUG, run(FLAT, {"val_accuracy": 0.77}), limits={"share": 0.95})


def test_near_miss_before_five_evaluations():
    assert_quiet(SLUG, run([0.1, 0.2, 0.3, 0.4], {"val_accuracy": 0.9}))
    assert_fires(SLUG, run([0.1, 0.2, 0.3, 0.4], {"val_accuracy": 0.9}), severity="info", limits={"evals": 1})


def test_it_resolves_when_the_baseline_is_reached():
    _, alerts = run_check(SLUG, run([*RISING, 0.95], {"val_accuracy": 0.9}))
    assert [a.state for a in alerts] == ["opened", "resolved"]


def test_a_larger_model_is_a_note_and_stays_one():
    alert = assert_fires(SLUG, run(FLAT, {"parameters": 300}), severity="info", layer="", since=(0, 1))
    assert alert.value == 3 * 256
    _, alerts = run_check(SLUG, run(FLAT, {"parameters": 300}))
    assert [a.state for a in alerts] == ["opened"]
    assert_quiet(SLUG, run(FLAT, {"parameters": 400}))
    assert_quiet(SLUG, run(FLAT, {"parameters": 300}), limits={"size": 0})


def test_both_findings_stand_side_by_side():
    engine, _ = run_check(SLUG, run(FLAT, {"parameters": 300, "val_accuracy": 0.9}))
    assert {(i.layer, i.severity) for i in engine.issues} == {("", "info"), (None, "warning")}


@pytest.mark.parametrize(
    ("baseline", "reason"), [(None, "no baseline"), ("runs/old.jsonl", "no map"), (0.9, "no map")]
)
def test_not_ready_without_a_map(baseline, reason):
    engine = assert_quiet(SLUG, run(FLAT, baseline), ready=False)
    assert reason in engine.not_run()[SLUG]


def test_a_metric_that_is_not_there_says_nothing():
    assert_quiet(SLUG, run(FLAT, {"val_f1": 0.9, "val_accuracy": "high"}))
