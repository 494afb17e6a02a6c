"""rank-silent: one rank's file stopped long before the others."""

import pytest

from tests.checks.ranks import compare
from torchwatch.records import End, Step, System

SLUG = "rank-silent"


def rank(last_s, end=None):
    """A rank that trains a step a second and tells about itself, until it stops."""
    body = [Step(step=i, time_s=float(i), loss=1.0, step_time_s=1.0) for i in range(1, last_s + 1)]
    body.insert(1, System(time_s=1.0, step=1, rss_bytes=2_000_000_000))
    return [*body, *([end] if end is not None else [])]


def test_a_rank_that_was_killed_is_named(tmp_path):
    _, alerts = compare(
        SLUG, tmp_path, [rank(300, End(time_s=300.0)), rank(120), rank(290, End(time_s=290.0))]
    )
    (alert,) = alerts
    assert (alert.severity, alert.since_step) == ("critical", 120)
    assert "Rank 1 fell silent 3 min 00 s before the others" in alert.title
    assert "no end record" in alert.detail
    assert "2.0 GB" in alert.detail


def test_rank_0_can_be_the_one(tmp_path):
    _, (alert,) = compare(SLUG, tmp_path, [rank(100), rank(200, End(time_s=200.0))])
    assert "Rank 0" in alert.title


def test_the_others_hang_and_still_write_about_themselves(tmp_path):
    """No step comes without the dead rank, but a system record does every second."""
    hanging = [
        *rank(100),
        *(System(time_s=float(s), step=100, since_step_s=s - 100.0) for s in range(101, 200)),
    ]
    _, (alert,) = compare(SLUG, tmp_path, [hanging, rank(100)])
    assert (alert.value, alert.since_step) == (99.0, 100)
    assert "Rank 1" in alert.title


def test_the_first_of_several_is_named(tmp_path):
    crashed = End(status="crashed", time_s=100.0, error="RuntimeError: boom")
    _, (alert,) = compare(SLUG, tmp_path, [rank(300), rank(180), rank(100, crashed)])
    assert "Rank 2" in alert.title
    assert "crashed: RuntimeError: boom" in alert.detail
    assert "1 more went after it" in alert.detail


@pytest.mark.parametrize(
    "other",
    [rank(300, End(time_s=300.0)), rank(245), rank(100, End(time_s=100.0))],
    ids=["to the end", "55 s before", "finished early"],
)
def test_quiet(other, tmp_path):
    engine, alerts = compare(SLUG, tmp_path, [rank(300, End(time_s=300.0)), other])
    assert alerts == []
    assert engine.not_run() == {}


def test_the_limit(tmp_path):
    ranks = [rank(300), rank(245)]
    assert compare(SLUG, tmp_path, ranks, {"silent_s": 50.0})[1]


def test_headers_without_a_time(tmp_path):
    engine, alerts = compare(SLUG, tmp_path, [rank(300), rank(100)], time="yesterday")
    assert alerts == []
    assert "does not say when" in engine.not_run()[SLUG]


def test_ranks_that_began_at_different_times(tmp_path):
    """What counts is when they ended, not how long they ran."""
    from tests.run.ranks import header, write
    from torchwatch.diagnosis import diagnose

    write(tmp_path / "run.jsonl", header(0), rank(300, End(time_s=300.0)))
    write(tmp_path / "run.rank1.jsonl", header(1, after_s=100.0), rank(200))
    assert SLUG not in {i.check for i in diagnose(tmp_path / "run.jsonl").issues}
