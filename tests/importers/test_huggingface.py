import json
import math
from pathlib import Path

import pytest

from tests.helpers_cli import call
from tests.importers.reading import evals, losses, notes, of_kind, opened, trainer_state
from torchwatch import diagnose
from torchwatch.errors import NotARunFile
from torchwatch.history import History
from torchwatch.importers import open_run
from torchwatch.records import End, Epoch, Eval, Interval, RunHeader, Step

TRAIN = [
    {"epoch": 0.1 * i, "learning_rate": 1e-4, "grad_norm": 1.5, "loss": 3.0 - 0.1 * i, "step": 10 * i}
    for i in range(1, 21)
]
FINAL = {"epoch": 2.0, "step": 200, "train_loss": 1.95, "train_runtime": 12.5, "total_flos": 1e15}


def test_train_rows_become_steps_and_the_final_mean_does_not(tmp_path: Path) -> None:
    reader, records = opened(tmp_path / "any.name", trainer_state([*TRAIN, FINAL]))
    assert reader.format == "Hugging Face trainer_state"
    steps = of_kind(records, Step)
    assert [s.step for s in steps] == list(range(10, 201, 10))
    assert steps[0].loss == 2.9
    assert steps[0].lr == [1e-4]
    assert (steps[0].grad_norm_preclip, steps[0].grad_norm) == (
        1.5,
        None,
    )  # the Trainer logs it before clipping
    assert [s.epoch for s in steps] == [0] * 10 + [1] * 10  # epoch 1.0 is the end of the first
    assert [e.epoch for e in of_kind(records, Epoch)] == [0, 1]
    assert of_kind(records, End)[0].status == "finished"


def test_without_a_final_row_the_end_is_not_known(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "a.json", trainer_state(TRAIN))
    assert of_kind(records, End)[0].status == "imported"


def test_several_evaluation_sets_of_a_step_are_one_evaluation(tmp_path: Path) -> None:
    sets = [
        {"epoch": 1.0, "step": 100, "eval_g0_loss": 1.1, "eval_g0_accuracy": 0.7, "eval_g0_runtime": 9.0},
        {"epoch": 1.0, "step": 100, "eval_g1_loss": 2.2, "eval_g1_samples_per_second": 30.0},
    ]
    _, records = opened(tmp_path / "a.json", trainer_state([*TRAIN[:10], *sets, *TRAIN[10:]]))
    assert [e.metrics for e in of_kind(records, Eval)] == [
        {"eval_g0_loss": 1.1, "eval_g0_accuracy": 0.7, "eval_g1_loss": 2.2}
    ]


def test_an_evaluation_before_the_first_step(tmp_path: Path) -> None:
    first = {"epoch": 0, "step": 0, "eval_loss": 5.0}
    _, records = opened(tmp_path / "a.json", trainer_state([first, *TRAIN]))
    assert evals(records, "eval_loss") == {0: 5.0}


SCORES = {
    "eval_class_a_f1": 0.5,
    "eval_accuracy": 0.6,
    "eval_loss": 1.0,
    "eval_overall_f1": 0.7,
    "eval_wer": 0.3,
}


@pytest.mark.parametrize(
    ("best", "order"),
    [
        (0.3, ["eval_loss", "eval_wer", "eval_overall_f1", "eval_accuracy", "eval_class_a_f1"]),
        (None, ["eval_loss", "eval_overall_f1", "eval_accuracy", "eval_wer", "eval_class_a_f1"]),
    ],
)
def test_the_metric_of_the_best_checkpoint_comes_first(
    best: float | None, order: list[str], tmp_path: Path
) -> None:
    rows = [*TRAIN, {"epoch": 2.0, "step": 200, **SCORES}]
    _, records = opened(tmp_path / "a.json", trainer_state(rows, best_metric=best))
    assert list(of_kind(records, Eval)[0].metrics) == order


def test_a_rising_loss_is_only_noted_while_the_score_improves(tmp_path: Path) -> None:
    rows = overfit()
    for row in rows:
        if "eval_loss" in row:
            row |= {"eval_class_a_f1": 0.5, "eval_wer": 1.0 / row["epoch"]}
    opened(tmp_path / "a.json", trainer_state(rows, best_metric=rows[-1]["eval_wer"]))
    found = {i.check: i.severity for i in diagnose(tmp_path / "a.json").issues}
    assert found["overfitting"] == "info"


@pytest.mark.parametrize("rewarded", [True, False])
def test_a_loss_beside_rewards_need_not_fall(rewarded: bool, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    for i in range(1, 401):  # GRPO: near 0, and it climbs as the model leaves its reference
        rows.append({"epoch": i / 400, "step": i, "loss": 1e-4 + 2e-4 * i, "kl": i / 400})
        if rewarded:
            rows[-1] |= {"reward": i / 400, "reward_std": 0.3}
    reader, records = opened(tmp_path / "a.json", trainer_state(rows))
    found = diagnose(tmp_path / "a.json")
    loud = found.severities["warning"] + found.severities["critical"]
    assert bool(loud) is not rewarded
    assert reader.header.config["declare"].get("reinforcement", False) is rewarded
    assert ("reinforcement" in notes(records)) is rewarded


def test_whole_epochs_are_ends_of_epochs(tmp_path: Path) -> None:
    rows = [{"epoch": 0, "step": 0, "eval_loss": 5.0}, {"epoch": 1.0, "step": 50, "loss": 2.0}]
    _, records = opened(tmp_path / "a.json", trainer_state([*rows, {"epoch": 2.0, "step": 100, "loss": 1.0}]))
    assert [s.epoch for s in of_kind(records, Step)] == [0, 1]


def test_scalars_as_text_and_literal_nan(tmp_path: Path) -> None:
    rows = [
        {"epoch": 0.1, "step": 1, "loss": "2.5", "learning_rate": "1e-05", "grad_norm": "3.0"},
        {"epoch": 0.2, "step": 2, "loss": math.nan, "learning_rate": "1e-05"},
    ]
    content = trainer_state(rows)
    assert "NaN" in content
    _, records = opened(tmp_path / "a.json", content)
    steps = of_kind(records, Step)
    assert (steps[0].loss, steps[0].lr, steps[0].grad_norm_preclip) == (2.5, [1e-5], 3.0)
    assert math.isnan(steps[1].loss or 0.0)
    assert [i.check for i in diagnose(tmp_path / "a.json").issues][:1] == ["loss-nonfinite"]


def test_lr_is_a_name_of_the_learning_rate(tmp_path: Path) -> None:
    _, records = opened(
        tmp_path / "a.json", trainer_state([{"step": 1, "loss": 1.0, "lr": 0.5, "epoch": 0.1}])
    )
    assert of_kind(records, Step)[0].lr == [0.5]


def with_nan_gradient(rate: float, loss: float) -> list[dict[str, float]]:
    rows = [
        {"epoch": i / 100, "step": i, "loss": 2.0, "grad_norm": 1.0, "learning_rate": 1e-3 / i}
        for i in range(1, 11)
    ]
    rows[5] |= {"grad_norm": math.nan, "learning_rate": rate, "loss": loss}
    return rows


def test_a_nan_gradient_with_finite_loss_and_unchanged_rate_was_skipped(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "a.json", trainer_state(with_nan_gradient(1e-3 / 5, 2.0)))
    assert [s.step for s in of_kind(records, Step) if s.skipped] == [6]
    assert of_kind(records, Step)[0].skipped is False
    assert "gradient scaler skipped" in notes(records)
    assert not diagnose(tmp_path / "a.json").issues


@pytest.mark.parametrize(("rate", "loss"), [(1e-3 / 6, 2.0), (1e-3 / 5, math.nan)], ids=["rate", "loss"])
def test_otherwise_it_was_not_skipped(rate: float, loss: float, tmp_path: Path) -> None:
    _, records = opened(tmp_path / "a.json", trainer_state(with_nan_gradient(rate, loss)))
    assert all(s.skipped is None for s in of_kind(records, Step))


def test_numbers_that_stand_for_no_limit_are_left_out(tmp_path: Path) -> None:
    endless = trainer_state(TRAIN, num_train_epochs=2**63 - 1, max_steps=200, train_batch_size=4)
    reader, _ = opened(tmp_path / "a.json", endless)
    assert reader.header.hyperparameters == {"max_steps": 200, "train_batch_size": 4}
    assert reader.header.config["declare"] == {"planned_steps": 200}


def test_a_resume_is_told_by_its_epoch(tmp_path: Path) -> None:
    rows = [dict(r) for r in TRAIN]
    for row in rows[12:]:
        row["epoch"] -= 1.0
    _, records = opened(tmp_path / "a.json", trainer_state(rows))
    assert "goes back at step 130" in notes(records)
    assert len(of_kind(records, Step)) == 20


def warming_up(path: Path, rates: list[float]) -> History:
    rows = [
        {"epoch": i / 40, "step": 50 * i, "loss": 2.0, "learning_rate": r} for i, r in enumerate(rates, 1)
    ]
    history = History()
    for record in opened(path, trainer_state(rows))[1]:
        history.add(record)
    return history


def test_warm_up_is_seen_at_sparse_rows_too(tmp_path: Path) -> None:
    rising = [1e-5 * i for i in range(1, 21)]
    history = warming_up(tmp_path / "a.json", [*rising, *reversed(rising)])
    assert (history.warm_up_end(), history.lr_rises()) == (1000, [])
    history = warming_up(
        tmp_path / "a.json", [*[1e-5] * 5, 1e-4, *[1e-5] * 5]
    )  # a rise after rows of one rate is none
    assert (history.warm_up_end(), history.lr_rises()) == (20, [300])


def test_intervals_have_ten_rows_where_the_log_is_long(tmp_path: Path) -> None:
    rows = [{"epoch": 0.5, "step": 50 * i, "loss": 1.0 + 1 / i} for i in range(1, 1001)]
    _, records = opened(tmp_path / "a.json", trainer_state(rows))
    intervals = of_kind(records, Interval)
    assert {i.steps for i in intervals} == {10}
    assert (intervals[0].first_step, intervals[0].last_step) == (1, 500)
    assert (intervals[1].first_step, intervals[1].last_step) == (501, 1000)


def test_one_row_left_of_an_epoch_is_no_interval_of_its_own(tmp_path: Path) -> None:
    rows = [{"epoch": (i + 1) / 41, "step": 20 * (i + 1), "loss": 1.0} for i in range(41 * 5)]
    _, records = opened(tmp_path / "a.json", trainer_state(rows))
    intervals = of_kind(records, Interval)
    assert {i.steps for i in intervals} == {10, 11}
    assert sum(i.steps for i in intervals) == len(rows)
    assert [i.last_step for i in intervals if i.closed_by == "epoch"] == [820, 1640, 2460, 3280, 4100]


def test_a_single_row_has_no_scatter(tmp_path: Path) -> None:
    rows = [{"epoch": i, "step": 500 * i, "loss": 1.0} for i in range(1, 25)]
    _, records = opened(tmp_path / "a.json", trainer_state(rows))
    assert {i.loss_std for i in of_kind(records, Interval)} == {None}


def test_a_log_that_begins_late_says_so(tmp_path: Path) -> None:
    rows = [{"epoch": 7.5, "step": 140_749 + 50 * i, "loss": 1.0} for i in range(10)]
    _, records = opened(tmp_path / "a.json", trainer_state(rows))
    assert of_kind(records, Interval)[0].first_step == 140_700


def test_scales_of_training_and_evaluation_are_kept_apart(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    for i in range(1, 41):  # gradient accumulation: train loss a quarter of the other
        rows.append({"epoch": i / 10, "step": 10 * i, "loss": 2.0 / i})
        rows.append({"epoch": i / 10, "step": 10 * i, "eval_loss": 8.0 / i})
    opened(tmp_path / "a.json", trainer_state(rows))
    found = diagnose(tmp_path / "a.json")
    assert found.severities["warning"] == found.severities["critical"] == 0


def overfit() -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    for epoch in range(1, 13):
        rows.append({"epoch": epoch, "step": 100 * epoch, "loss": 2.0 / epoch, "learning_rate": 1e-4})
        rows.append({"epoch": epoch, "step": 100 * epoch, "eval_loss": 1.0 + 0.1 * abs(epoch - 3)})
    return rows


def test_command_finds_overfitting_and_says_what_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(trainer_state([*overfit(), FINAL | {"step": 1200}]))
    shown = call(monkeypatch, "diagnose", path, "--json", "--fail-on", "warning")
    assert shown.code == 1
    said = json.loads(shown.out)
    assert {i["check"]: i["severity"] for i in said["issues"]}["overfitting"] == "warning"
    assert said["not_run"]["dead-units"] == "no `activations.dead_fraction`"
    assert said["not_run"]["gradient-nonfinite"] == "no `grad_norm`"
    assert said["replay_matches"] is None
    assert (said["status"], said["steps"], said["epochs"]) == ("finished", 12, 12)


def test_report_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    path.write_text(trainer_state(overfit()))
    shown = call(monkeypatch, "postmortem", path, "--out", tmp_path / "out")
    assert shown.code == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "overfitting" in text
    assert "how the training ended, it does not say" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (trainer_state([]), "has logged nothing"),
        (trainer_state([{"step": 1, "eval_loss": 2.0}]), "without a training loss"),
        (trainer_state(TRAIN)[:-40], "is not a run file"),
        ('{"log_history": 5}', "is not a run file"),
    ],
    ids=["empty", "no loss", "cut off", "another type"],
)
def test_what_cannot_be_used(
    content: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(content)
    with pytest.raises(NotARunFile, match=words):
        open_run(path)
    shown = call(monkeypatch, "diagnose", path)
    assert shown.code == 2
    assert shown.err.startswith("torchwatch: ")
    assert shown.err.count("\n") == 1


def test_header_says_what_it_is(tmp_path: Path) -> None:
    reader, records = opened(tmp_path / "state.json", trainer_state(TRAIN))
    assert isinstance(records[0], RunHeader)
    assert reader.header.config["imported"] == {"format": "Hugging Face trainer_state", "unit": "step"}
    assert reader.header.torchwatch == ""  # no live alerts to compare with
    assert losses(records)[10] == 2.9
