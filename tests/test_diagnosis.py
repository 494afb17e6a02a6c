from __future__ import annotations

import dataclasses
import math
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest

import torchwatch
from tests.helpers_checks import layout, records
from torchwatch.check import select
from torchwatch.diagnosis import LayerHighlight, diagnose
from torchwatch.diagnosis.judge import highlights
from torchwatch.engine import Engine
from torchwatch.errors import ConfigError, NotARunFile
from torchwatch.records import Alert, End, Note, Record, RunHeader, Step, Unknown, encode
from torchwatch.run import read_run


def recorded(body: list[Record], *, end: End | None = None, **header: Any) -> list[Record]:
    """The records as a recorder would have written them: alerts after their lines, an end record last."""
    first = dataclasses.replace(
        body[0], torchwatch=torchwatch.__version__, run_id="r1", name="digits", time="2026-01-02T03:04:05Z",
        model="Net", limits=select().limits(), **header,
    )  # fmt: skip
    engine = Engine(select())
    lines: list[Record] = []
    for record in [first, *body[1:]]:
        lines += [record, *engine.feed(record)]
    lines += engine.finish()
    last = end or End(step=engine.history.step, time_s=99.0, health_score=engine.health_score())
    return [*lines, last]


def sick(**more: Any) -> list[Record]:
    """A loss that becomes NaN at step 120, just after the gradient became infinite."""
    return records(
        loss=[2.0 / (1 + n / 40) if n < 120 else math.nan for n in range(1, 201)],
        grad_norm=lambda n: 1.0 if n < 119 else math.inf,
        epoch_steps=100,
        evals={100: {"val_loss": 1.0}},
        **more,
    )


def write(path: Path, lines: list[Record]) -> Path:
    path.write_bytes(b"".join(map(encode, lines)))
    return path


def test_a_diagnosis_says_what_was_wrong():
    diagnosis = diagnose(recorded(sick()))
    assert (diagnosis.id, diagnosis.run, diagnosis.model) == ("r1", "digits", "Net")
    assert diagnosis.created_at == "2026-01-02T03:04:05Z", "from the header, not from the clock"
    assert (diagnosis.status, diagnosis.complete) == ("finished", True)
    assert (diagnosis.steps, diagnosis.epochs, diagnosis.duration_s) == (200, 2, 99.0)
    nonfinite = next(i for i in diagnosis.issues if i.check == "loss-nonfinite")
    assert (nonfinite.severity, nonfinite.since_step, nonfinite.state) == ("critical", 120, "opened")
    assert diagnosis.issues[0].severity == "critical"
    assert diagnosis.health_score <= 80
    assert diagnosis.band in ("good", "warning", "critical")
    assert diagnosis.severities["critical"] == sum(i.severity == "critical" for i in diagnosis.issues)
    assert sum(diagnosis.categories.values()) == diagnosis.issue_count == len(diagnosis.issues)
    assert diagnosis.not_run["memory-growth"] == "no `rss_bytes`"
    assert [e.epoch for e in diagnosis.epoch_trend] == [0, 1]
    assert diagnosis.epoch_trend[0].metrics == {"val_loss": 1.0}
    assert {i.id for i in diagnosis.incidents} == {i.incident for i in diagnosis.issues}


def test_layers_are_listed_worst_first():
    issues = (
        Alert(check="a", severity="critical", layer="0"),
        Alert(check="b", severity="warning", layer="gone"),
        Alert(check="b", severity="info", layer="1"),
        Alert(check="c", severity="warning", layer="1"),
        Alert(check="d", severity="critical"),
    )
    assert highlights(issues, layout()) == (
        LayerHighlight("0", "Linear", 20, ("a",)),
        LayerHighlight("1", "Linear", 9, ("b", "c")),
        LayerHighlight("gone", "", 7, ("b",)),
    )
    assert highlights(issues, None)[0] == LayerHighlight("0", "", 20, ("a",))


def test_as_json_is_strict_json_with_the_alert_lines():
    diagnosis = diagnose(recorded(sick()))
    body = diagnosis.as_json()
    assert orjson.loads(orjson.dumps(body)) == body
    assert body["issues"] == [orjson.loads(encode(i)) for i in diagnosis.issues]
    assert body["issue_count"] == len(body["issues"])
    assert body["incidents"][0]["root"]["explanation"] == diagnosis.incidents[0].explanation
    assert body["severities"].keys() == {"critical", "warning", "info"}
    fields = {f.name for f in dataclasses.fields(diagnosis)}
    fields |= {"issue_count", "severities", "categories", "session_issues"}
    assert set(body) == fields


def test_the_same_from_a_file_a_run_and_records(tmp_path):
    lines = recorded(sick())
    path = write(tmp_path / "run.jsonl", lines)
    of_records, of_file = diagnose(lines), diagnose(path)
    of_run = diagnose(torchwatch.read_run(path))
    assert of_file.run == str(path)

    def told(diagnosis: Any) -> dict[str, Any]:
        changing = ("run", "wall_s", "steps_per_s")
        return {k: v for k, v in diagnosis.as_json().items() if k not in changing}

    assert told(of_file) == told(of_records) == told(of_run)


# ------------------------------------------------------------------------------- live equals replay


def test_a_complete_run_replays_exactly():
    diagnosis = diagnose(recorded(sick()))
    assert diagnosis.replay_matches is True
    assert diagnosis.replay_difference is None
    assert diagnosis.recorded_alerts == diagnosis.replayed_alerts > 0


def test_notes_and_unknown_lines_between_do_not_matter():
    lines: list[Record] = []
    for record in recorded(sick()):
        lines += [record, Note(message="x"), Unknown(name="future", data={})]
    assert diagnose(lines[:-2]).replay_matches is True


def first_alert(lines: list[Record]) -> int:
    return next(i for i, r in enumerate(lines) if isinstance(r, Alert))


def test_a_missing_alert_is_a_difference():
    lines = recorded(sick())
    gone = lines.pop(first_alert(lines))
    diagnosis = diagnose(lines)
    assert diagnosis.replay_matches is False
    assert isinstance(gone, Alert)
    assert diagnosis.replay_difference is not None
    assert f"{gone.check} opened as {gone.severity}" in diagnosis.replay_difference
    assert "replayed" in diagnosis.replay_difference


def test_an_alert_that_the_records_do_not_give_is_a_difference():
    lines = recorded(sick())
    made_up = Alert(check="noisy-loss", title="made up", layer="conv")
    lines.insert(5, made_up)
    diagnosis = diagnose(lines)
    assert diagnosis.replay_difference is not None
    assert (
        "noisy-loss opened as info in 'conv' (made up) recorded, nothing replayed"
        in diagnosis.replay_difference
    )


@pytest.mark.parametrize("at_end", [False, True])
def test_an_alert_in_another_place_or_with_another_value_is_a_difference(at_end):
    lines = recorded(sick())
    place = first_alert(lines)
    alert = lines.pop(place)
    if at_end:
        lines.insert(-1, alert)
    else:
        lines.insert(place, dataclasses.replace(alert, since_step=3))
    assert diagnose(lines).replay_matches is False


@pytest.mark.parametrize(
    "why",
    ["killed", "incomplete", "another version", "limits", "unknown limits", "ignore"],
)
def test_where_the_same_alerts_cannot_be_expected_nothing_is_claimed(why):
    lines = recorded(sick(), end=End(complete=False) if why == "incomplete" else None)
    given: dict[str, Any] = {}
    if why == "killed":
        lines = lines[:-1]
    elif why == "another version":
        lines[0] = dataclasses.replace(lines[0], torchwatch="0.0.1")
    elif why == "unknown limits":
        lines[0] = dataclasses.replace(lines[0], limits={"of-another-version": {"x": 1}})
    elif why == "limits":
        given = {"limits": {"overfitting": {}}}
    elif why == "ignore":
        given = {"ignore": ["noisy-loss"]}
    diagnosis = diagnose(lines, **given)
    assert diagnosis.replay_matches is None
    assert diagnosis.replay_difference is None


# ------------------------------------------------------------------------------- limits and ignores


def test_the_headers_limits_and_ignores_are_in_force_unless_overridden():
    ignoring = recorded(sick(), ignore=["loss-nonfinite"])
    diagnosis = diagnose(ignoring)
    assert diagnosis.not_run["loss-nonfinite"] == "ignored"
    assert "loss-nonfinite" not in {i.check for i in diagnosis.issues}
    assert diagnose(ignoring, limits={"overfitting": {}}).not_run["loss-nonfinite"] == "ignored"
    other = diagnose(ignoring, ignore="noisy-loss")
    assert "loss-nonfinite" in {i.check for i in other.issues}
    assert other.not_run["noisy-loss"] == "ignored"


def test_a_given_limit_beats_the_headers_and_leaves_the_others():
    check = next(c for c in select().checks if c.slug == "loss-nonfinite")
    name = next(iter(dataclasses.asdict(check.limits)))
    lines = recorded(sick())
    strict = diagnose(lines, limits={"loss-nonfinite": {name: 10_000}})
    assert "loss-nonfinite" not in {i.check for i in strict.issues}
    lines[0] = dataclasses.replace(lines[0], limits={"loss-nonfinite": {name: 10_000}})
    assert "loss-nonfinite" not in {i.check for i in diagnose(lines).issues}
    assert "loss-nonfinite" in {i.check for i in diagnose(lines, limits={"loss-nonfinite": {name: 1}}).issues}


def test_wrong_limits_and_sources_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'overfitting'"):
        diagnose(recorded(sick()), limits={"overfittin": {}})
    for source in ([], [End()]):
        with pytest.raises(NotARunFile):
            diagnose(source)
    with pytest.raises(NotARunFile):
        diagnose("/no/such/file.jsonl")


# ---------------------------------------------------------------------------------- damaged and long


def test_a_run_that_was_killed_still_gets_its_last_look_and_says_so(tmp_path):
    lines = recorded(sick())
    content = b"".join(map(encode, lines[:-1]))
    path = tmp_path / "run.jsonl"
    path.write_bytes(content + b'{"kind":"step","st')
    diagnosis = diagnose(path)
    assert (diagnosis.status, diagnosis.complete, diagnosis.torn_lines) == ("unfinished", False, 1)
    assert {i.check for i in diagnosis.issues} == {i.check for i in diagnose(lines).issues}


def test_a_header_alone_is_a_run_in_which_nothing_could_be_told():
    diagnosis = diagnose([RunHeader(run_id="a", name="empty")])
    assert (diagnosis.steps, diagnosis.issues, diagnosis.health_score) == (0, (), None)
    assert set(diagnosis.not_run) == {c.slug for c in select().checks}
    assert diagnosis.band == "not judged"
    assert diagnosis.as_json()["layers"] == []


def test_memory_does_not_grow_with_the_run():
    one = records(
        loss=lambda n: 1 / n, steps=500, grad_norm=1.0, update_ratio=1e-3, batched=250, interval_steps=250,
        columns={"grad_norms": 1.0},
    )  # fmt: skip

    def stream(times: int) -> Any:
        yield from one[:2]
        for _ in range(times):
            yield from one[2:]

    def peak(times: int) -> int:
        tracemalloc.start()
        diagnosis = diagnose(stream(times))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert diagnosis.steps == 500 * times
        return size

    diagnose(stream(10))
    assert peak(40) < peak(10) + 500_000


# ------------------------------------------------------------------------------------------ several ranks


def two_ranks(folder: Path) -> Path:
    """Rank 0 trained to the end; rank 1's file stops after 50 of 200 steps."""
    lines = recorded(records([1.0] * 200, step_time_s=2.0), world=2)
    silent = [lines[0], *(r for r in lines[1:] if isinstance(r, Step) and r.step <= 50)]
    write(folder / "run.rank1.jsonl", [dataclasses.replace(silent[0], rank=1), *silent[1:]])
    return write(folder / "run.jsonl", lines)


def test_with_rank_0s_file_the_ranks_are_compared(tmp_path):
    path = two_ranks(tmp_path)
    found = diagnose(path)
    assert [(i.check, i.severity) for i in found.issues if i.check == "rank-silent"] == [
        ("rank-silent", "critical")
    ]
    assert found.health_score <= 80
    assert found.replay_matches, "what compares ranks is in no file"
    assert found.recorded_alerts == found.replayed_alerts
    joined = diagnose(read_run(path))
    assert [i.check for i in joined.issues] == [i.check for i in found.issues]


def test_ranks_are_not_compared_where_one_file_was_asked_for(tmp_path):
    path = two_ranks(tmp_path)
    alone = diagnose(read_run(path, ranks=False))
    assert "rank-silent" not in {i.check for i in alone.issues}
    assert alone.not_run["rank-silent"] == "needs the files of several ranks, read together"
    other = diagnose(tmp_path / "run.rank1.jsonl")
    assert "rank-silent" in other.not_run
    (tmp_path / "run.rank1.jsonl").unlink()
    assert "rank-silent" in diagnose(path).not_run
