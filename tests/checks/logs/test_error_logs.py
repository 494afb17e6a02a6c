"""error-logs: the program logged errors, or ended with an exception."""

from __future__ import annotations

import logging

import pytest
import torch

from tests.helpers_checks import assert_fires, assert_quiet, records, run_check
from tests.helpers_watch import record
from torchwatch.diagnosis import diagnose
from torchwatch.records import Alert, Log

SLUG = "error-logs"


def run(*logs, listened=True):
    """A log record after every tenth step."""
    body = records([1.0] * 100, extra={10 * (i + 1): [log] for i, log in enumerate(logs)})
    body[0].config["logs"] = listened
    return body


def error(message="disk is slow", level="ERROR", source="host", step=10):
    return Log(step=step, time_s=1.0, level=level, source=source, message=message)


@pytest.mark.parametrize("level", ["ERROR", "CRITICAL"])
def test_an_error_is_a_warning_at_once(level):
    alert = assert_fires(SLUG, run(error(level=level)), severity="warning", since=(10, 10), by=10)
    assert alert.title == "An error was logged: disk is slow"
    assert alert.value == 1
    assert alert.detail == "host at step 10: disk is slow"


def test_several_are_one_issue_with_their_number():
    engine, alerts = run_check(SLUG, run(*(error(f"number {i}", step=10 + 10 * i) for i in range(5))))
    assert len(alerts) <= 3
    (issue,) = engine.issues
    assert issue.title == "5 errors were logged, the first: number 0"
    assert issue.since_step == 10
    assert issue.detail == "host at step 10: number 0 (5 messages of this level or above in all)"


@pytest.mark.parametrize(
    "log",
    [
        error("CUDA out of memory. Tried to allocate 2.00 GiB", source="OutOfMemoryError", level="CRITICAL"),
        error("[enforce fail] DefaultCPUAllocator: can't allocate memory", source="RuntimeError"),
        error("", source="MemoryError", level="CRITICAL"),
    ],
    ids=lambda log: log.source,
)
def test_memory_that_ran_out_is_critical(log):
    alert = assert_fires(SLUG, run(error("before", step=5), log), severity="critical")
    assert alert.title == "Memory ran out"


def test_quiet_where_nothing_was_said():
    assert_quiet(SLUG, run())


def test_near_misses_warnings_and_steering():
    assert_quiet(SLUG, run(error(level="WARNING"), error("pruned at step 40", source="TrialPruned")))


def test_not_run_where_nobody_listened():
    engine = assert_quiet(SLUG, run(listened=False), ready=False)
    assert "not recorded" in engine.not_run()[SLUG]


def test_text_of_the_host_is_made_harmless():
    alert = assert_fires(SLUG, run(error("\x1b[2Jfirst line\nsecond" + "x" * 5000)))
    assert alert.title.startswith("An error was logged: \\x1b[2Jfirst line")
    assert len(alert.title) < 200
    assert "\x1b" not in alert.title + alert.detail


def test_errors_limit():
    assert_quiet(SLUG, run(error(), error()), limits={"errors": 3})


def train(watch, model, last=None):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(20):
        loss = model(torch.randn(8, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.log(loss=loss)
        if step == 10:
            logging.getLogger("host").error("could not save %s", "best.pt")
    if last is not None:
        raise last


def test_a_real_training_that_logs_an_error_and_goes_on(tmp_path, caplog):
    model = torch.nn.Linear(4, 1)
    written = record(model, lambda watch: train(watch, model), tmp_path / "run.jsonl")
    (alert,) = (a for a in written if isinstance(a, Alert) and a.check == SLUG)
    assert (alert.severity, alert.title) == ("warning", "An error was logged: could not save best.pt")
    assert [r.getMessage() for r in caplog.records] == ["could not save best.pt"], (
        "the host's handlers hear it"
    )
    assert diagnose(tmp_path / "run.jsonl").replay_matches


@pytest.mark.parametrize(
    ("raised", "severity", "title"),
    [
        (
            ValueError("batch 17 is empty"),
            "warning",
            "2 errors were logged, the first: could not save best.pt",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "critical", "Memory ran out"),
    ],
    ids=["crash", "memory"],
)
def test_a_real_training_that_crashes(tmp_path, raised, severity, title):
    model = torch.nn.Linear(4, 1)
    with pytest.raises(type(raised)):
        record(model, lambda watch: train(watch, model, raised), tmp_path / "run.jsonl")
    found = diagnose(tmp_path / "run.jsonl")
    (issue,) = (i for i in found.issues if i.check == SLUG)
    assert (issue.severity, issue.title) == (severity, title)
    assert found.replay_matches
