"""The engine: from findings to issues, alerts, incidents and the score; live and in replay.

Longer than other files: a flat list of cases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers_checks import layout, records
from torchwatch.check import (
    Category,
    Cause,
    Check,
    Finding,
    NotReady,
    On,
    Scope,
    Selection,
    Severity,
    select,
)
from torchwatch.engine import Engine, health_score
from torchwatch.history import History
from torchwatch.records import (
    Alert,
    Blackbox,
    End,
    Eval,
    Interval,
    Log,
    Note,
    Record,
    RunHeader,
    Step,
    System,
    Unknown,
    batch,
    decode,
    encode,
)

Find = Callable[[History], list[Finding]]
INFO, WARNING, CRITICAL = Severity.INFO, Severity.WARNING, Severity.CRITICAL


def check(
    slug: str,
    find: Callable[[History], Any],
    *,
    on: On = On.STEP,
    cause: Cause = Cause.LOSS,
    severity: Severity = WARNING,
    **more: Any,
) -> Check:
    return Check(
        severity=severity, category=Category.LOSS, cause=cause, when=frozenset({on}),
        reads=more.pop("reads", ()), find=lambda history, limits: find(history), limits=None,
        fix=more.pop("fix", f"fix {slug}"), slug=slug, **more,
    )  # fmt: skip


def at(script: dict[int, Any]) -> Find:
    """Findings by step; a severity alone is a finding of that severity."""

    def find(history: History) -> list[Finding]:
        found = script.get(history.step, [])
        if isinstance(found, Severity):
            return [Finding("found", history.step, severity=found)]
        return found

    return find


def between(
    first: int, last: int, since: int | None = None, **more: Any
) -> Callable[[History], list[Finding]]:
    def find(history: History) -> list[Finding]:
        onset = history.step if since is None else since
        return [Finding("found", onset, **more)] if first <= history.step <= last else []

    return find


def run(*checks: Check, steps: int = 100, header: RunHeader | None = None) -> tuple[Engine, list[Alert]]:
    engine = Engine(Selection(checks))
    engine.feed(header or RunHeader(run_id="a"))
    alerts = [a for n in range(1, steps + 1) for a in engine.feed(Step(step=n, epoch=n // 10, loss=1.0))]
    return engine, alerts + engine.finish()


def states(alerts: list[Alert], slug: str = "a") -> list[tuple[str, int]]:
    return [(a.state, a.step) for a in alerts if a.check == slug]


# ------------------------------------------------------------------------------- life of one issue


def test_an_issue_opens_once_and_resolves_after_clean_looks():
    _, alerts = run(check("a", between(10, 20), resolve_after=5))
    assert states(alerts) == [("opened", 10), ("resolved", 25)]
    opened, resolved = alerts
    assert opened == Alert(
        state="opened", check="a", severity="warning", category="loss", title="found", step=10, epoch=1,
        fix="fix a", count=1, since_step=10, last_step=10, incident=1, root=True,
        explanation=opened.explanation,
    )  # fmt: skip
    assert (resolved.count, resolved.since_step, resolved.last_step) == (11, 10, 20)


def test_an_issue_that_comes_back_is_opened_again_with_its_count_and_first_onset():
    engine, alerts = run(check("a", lambda h: between(10, 10)(h) or between(30, 30)(h)))
    assert states(alerts) == [("opened", 10), ("resolved", 12), ("opened", 30), ("resolved", 32)]
    assert [a.count for a in alerts] == [1, 1, 2, 2]
    assert {a.since_step for a in alerts} == {10}
    assert engine.health_score() == 93, "it counts once"


def test_an_issue_that_flickers_becomes_patient():
    _, alerts = run(check("a", at(dict.fromkeys(range(4, 1000, 4), WARNING))), steps=998)
    assert len(alerts) == 2 * 4 - 1, "two clean looks resolve it at first, from the third reopening on four"


def test_a_steps_line_counts_as_its_steps():
    engine = Engine(Selection((check("a", between(1, 5), resolve_after=6),)))
    assert len(engine.feed(Step(step=5))) == 1
    assert engine.feed(batch([Step(step=n) for n in range(6, 11)])) == []
    assert [a.state for a in engine.feed(batch([Step(step=n) for n in range(11, 16)]))] == ["resolved"]


def test_a_look_that_cannot_tell_neither_finds_nor_resolves():
    def find(history: History) -> list[Finding] | NotReady:
        return NotReady("later") if history.step % 2 == 0 else between(11, 20)(history)

    _, alerts = run(check("a", find, resolve_after=3))
    assert states(alerts) == [("opened", 11), ("resolved", 25)]


def test_a_worse_severity_is_told_at_once_a_milder_one_after_an_interval():
    script = dict.fromkeys(range(10, 100), WARNING) | {11: INFO, 20: CRITICAL}
    header = RunHeader(run_id="a", config={"interval_steps": 50})
    _, alerts = run(check("a", at(script), severity=INFO), header=header)
    assert [(a.state, a.step, a.severity) for a in alerts] == [
        ("opened", 10, "warning"), ("updated", 20, "critical"), ("updated", 70, "warning"),
    ]  # fmt: skip


def test_growth_is_told_at_most_once_per_interval_and_no_change_never():
    def growing(history: History) -> list[Finding]:
        return [Finding("a", 10, value=float(history.step))] if history.step >= 10 else []

    header = RunHeader(run_id="a", config={"interval_steps": 30})
    _, alerts = run(check("a", growing), check("b", between(10, 100, value=3.0)), header=header)
    assert states(alerts) == [("opened", 10), ("updated", 40), ("updated", 70), ("updated", 100)]
    assert states(alerts, "b") == [("opened", 10)]
    assert [a.worst for a in alerts if a.check == "a"] == [10, 40, 70, 100]


def test_worst_is_the_largest_magnitude_and_nan_beats_all():
    values = {10: 1.0, 11: -5.0, 12: 3.0, 13: None, 14: math.nan, 15: 9.0}
    engine, _ = run(
        check("a", lambda h: [Finding("a", 10, value=values[h.step])] if h.step in values else []), steps=13
    )
    assert engine.issues[0].worst == -5.0
    engine, _ = run(
        check("a", lambda h: [Finding("a", 10, value=values[h.step])] if h.step in values else []), steps=15
    )
    assert math.isnan(engine.issues[0].worst or 0)
    assert engine.issues[0].value == 9.0


def test_one_issue_per_layer_with_the_worst_of_several_findings():
    found = [
        Finding("x", 5, layer="conv", severity=INFO),
        Finding("y", 5, layer="conv", severity=CRITICAL),
        Finding("z", 5, layer=""),
        Finding("w", 5),
    ]
    engine, alerts = run(check("a", at({5: found})), steps=5)
    assert [(a.layer, a.severity, a.title) for a in alerts] == [
        ("conv", "critical", "y"), ("", "warning", "z"), (None, "warning", "w"),
    ]  # fmt: skip
    assert engine.health_score() == 80, "a check counts once, at its worst"


def test_the_summary_tells_an_issue_at_its_worst():
    def find(history: History) -> list[Finding]:
        worst = [Finding(f"bad {history.step}", 12, severity=CRITICAL, value=9.0)]
        return worst if history.step in (12, 13) else between(10, 20)(history)

    engine, _ = run(check("a", find))
    (issue,) = engine.issues
    assert (issue.state, issue.severity, issue.title, issue.value) == ("resolved", "critical", "bad 13", 9.0)
    assert (issue.last_step, issue.epoch, issue.count) == (20, 2, 11)


@pytest.mark.parametrize(("since", "told"), [(-5, 0), (7, 7), (99, 10)])
def test_an_onset_lies_in_the_run(since, told):
    _, alerts = run(check("a", between(10, 10, since=since)), steps=10)
    assert alerts[0].since_step == told


def test_numbers_from_numpy_become_plain_and_short():
    finding = Finding("a", np.int64(3), value=np.float32(0.1), threshold=1 / 3)  # type: ignore[arg-type]
    _, alerts = run(check("a", at({3: [finding]})), steps=3)
    assert (alerts[0].value, alerts[0].threshold) == (0.1, 0.333333)
    assert type(alerts[0].since_step) is int
    assert decode(encode(alerts[0])) == alerts[0]


# ---------------------------------------------------------------------------------------- incidents


def test_issues_that_began_together_are_one_incident_rooted_in_the_causal_order():
    engine, alerts = run(
        check("loss", between(30, 40, since=25), cause=Cause.LOSS, severity=CRITICAL),
        check("wiring", between(30, 90, since=30), cause=Cause.WIRING),
        check("gradient", between(30, 90, since=20), cause=Cause.GRADIENT),
        steps=30,
    )
    assert [(a.check, a.root, a.incident) for a in alerts] == [
        ("wiring", True, 1), ("gradient", False, 1), ("loss", False, 1),
    ]  # fmt: skip
    (incident,) = engine.incidents
    assert incident.root.check == "wiring"
    assert [s.check for s in incident.symptoms] == ["gradient", "loss"]
    assert [a.explanation is None for a in alerts] == [False, True, True]


@pytest.mark.parametrize(
    ("onsets", "root"),
    [
        ((30, 30, 30), "loss"),  # a batch with NaN: the weights are only where it ended
        ((31, 30, 30), "gradient"),  # made in the backward pass
        ((31, 31, 30), "parameter"),  # near miss: an update that was too large
    ],
)
def test_non_finite_values_are_rooted_where_they_came_in(onsets, root):
    causes = (Cause.LOSS, Cause.GRADIENT, Cause.PARAMETER)
    spread = [
        check(f"{c.name.lower()}-nonfinite", between(32, 90, since=s), cause=c, severity=CRITICAL)
        for c, s in zip(causes, onsets, strict=True)
    ]
    (incident,) = run(*spread)[0].incidents
    assert incident.root.check == f"{root}-nonfinite"
    assert len(incident.symptoms) == 2


def test_a_wiring_fault_stays_the_root_of_non_finite_values():
    values = check("loss-nonfinite", between(30, 90), severity=CRITICAL)
    (incident,) = run(check("wiring", between(30, 90), cause=Cause.WIRING), values)[0].incidents
    assert incident.root.check == "wiring"


def test_far_onsets_are_two_incidents_and_the_distance_is_one_interval():
    def found(gap: int, interval: int) -> int:
        header = RunHeader(run_id="a", config={"interval_steps": interval})
        checks = check("a", between(10, 11)), check("b", between(10 + gap, 11 + gap))
        return len(run(*checks, header=header)[0].incidents)

    assert [found(20, 5), found(21, 5), found(50, 50), found(51, 50)] == [1, 2, 1, 2]


def test_the_interval_is_the_longer_of_the_last_two_seen():
    engine = Engine(Selection((check("a", between(1, 1)), check("b", between(60, 60)))))
    stream: list[Record] = [Step(step=1), Interval(steps=60), Interval(steps=3), Step(step=60)]
    alerts = [a for r in stream for a in engine.feed(r)]
    assert {a.incident for a in alerts} == {1}


def test_noticed_late_but_began_together_is_one_incident_with_a_new_root():
    engine, alerts = run(
        check("loss", between(10, 100, since=10), cause=Cause.LOSS),
        check("wiring", between(90, 100, since=2), cause=Cause.WIRING),
    )
    lines = [(a.state, a.check, a.step, a.root, a.explanation is not None) for a in alerts]
    assert lines == [
        ("opened", "loss", 10, True, True),
        ("opened", "wiring", 90, True, True),
        ("updated", "loss", 90, False, False),
    ]
    assert engine.incidents[0].root.check == "wiring"


def test_a_resolved_root_that_is_replaced_stays_resolved():
    _, alerts = run(
        check("loss", between(10, 12, since=10), cause=Cause.LOSS),
        check("wiring", between(90, 100, since=2), cause=Cause.WIRING),
    )
    assert [(a.state, a.step, a.root) for a in alerts if a.check == "loss"] == [
        ("opened", 10, True), ("resolved", 14, True), ("resolved", 90, False),
    ]  # fmt: skip


def test_an_info_is_never_the_root_of_something_worse_until_it_is_worse_itself():
    worse = dict.fromkeys(range(10, 50), INFO) | dict.fromkeys(range(50, 100), WARNING)
    engine, alerts = run(
        check("wiring", at(worse), cause=Cause.WIRING),
        check("loss", between(12, 99), cause=Cause.LOSS),
        header=RunHeader(run_id="a", config={"interval_steps": 20}),
    )
    roots = [(a.step, a.check) for a in alerts if a.root]
    assert roots[:3] == [(10, "wiring"), (12, "loss"), (50, "wiring")]
    assert [(a.check, a.root) for a in alerts if a.step == 12] == [("loss", True), ("wiring", False)]
    assert engine.incidents[0].root.check == "wiring"


def test_infos_alone_have_their_own_incident_and_do_not_chain_faults_together():
    infos = [check(f"i{n}", between(n, 1000, since=n), severity=INFO) for n in range(15, 90, 15)]
    engine, _ = run(
        check("a", between(10, 1000, since=10)),
        check("b", between(95, 1000, since=95)),
        *infos,
        header=RunHeader(run_id="a", config={"interval_steps": 20}),
    )
    assert len({i.incident for i in engine.issues if i.check in ("a", "b")}) == 2
    assert all(i.root.severity == "warning" for i in engine.incidents[:1])


def test_the_explanation_tells_what_where_since_when_why_and_what_to_do():
    found = [Finding("62 % of the units are dead", 4, "For 512 samples.", layer="conv1", fix="Use GELU")]
    engine, _ = run(
        check("dead", at({5: found}), cause=Cause.ACTIVATION),
        check("loss", between(6, 6), cause=Cause.LOSS),
        check("optimizer", between(90, 90), cause=Cause.WIRING),
        check("weights", between(90, 90), cause=Cause.PARAMETER),
        steps=6,
    )
    assert engine.incidents[0].explanation == (
        "Since step 4 in layer conv1: 62 % of the units are dead. For 512 samples. The likely cause is what "
        "the layers pass on to each other. Checks of the wiring and the weights found nothing that would "
        "explain it. The inputs were not looked at. What to do: Use GELU. What followed: found (loss, since "
        "step 6)."
    )


def test_a_cause_that_spoke_is_not_said_to_be_quiet():
    engine, _ = run(
        check("dead", between(100, 150), cause=Cause.ACTIVATION),
        check("optimizer", between(5, 6), cause=Cause.WIRING),
        check("inputs", between(400, 400), cause=Cause.INPUT),
        steps=150,
        header=RunHeader(run_id="a", config={"interval_steps": 20}),
    )
    said = next(i for i in engine.incidents if i.root.check == "dead").explanation
    assert "Checks of the inputs found nothing" in said
    assert "The weights were not looked at." in said
    assert "wiring" not in said


def test_what_surrounds_the_training_needs_no_alternatives():
    engine, _ = run(check("slow", between(5, 6), cause=Cause.OTHER), steps=6)
    said = engine.incidents[0].explanation
    assert "looked at" not in said
    assert "found nothing" not in said


def test_the_explanation_names_what_was_wrong_before():
    def explained(*checks: Check) -> str:
        header = RunHeader(run_id="a", config={"interval_steps": 20})
        engine, _ = run(*checks, check("loss", between(60, 70), cause=Cause.LOSS), header=header)
        return engine.incidents[-1].explanation

    wiring = {"cause": Cause.WIRING}
    words = "It began while something earlier was wrong: found (wiring, since step 2)."
    assert words in explained(check("wiring", between(10, 90, since=2), **wiring))
    assert words not in explained(check("wiring", between(10, 50, since=2), **wiring)), "over by then"
    assert words not in explained(check("wiring", between(10, 90, since=2), cause=Cause.OTHER)), "no cause"
    assert words not in explained(check("wiring", between(10, 90, since=2), severity=INFO, **wiring))


# ------------------------------------------------------------------------------------- when to look


@pytest.mark.parametrize(
    ("on", "record"),
    [
        (On.LAYOUT, layout()),
        (On.STEP, Step(step=1)),
        (On.STEP, batch([Step(step=1), Step(step=2)])),
        (On.INTERVAL, Interval()),
        (On.EVAL, Eval()),
        (On.SYSTEM, System()),
        (On.LOG, Log()),
    ],
)
def test_a_check_looks_after_its_records_only(on, record):
    for event in On:
        engine = Engine(Selection((check("a", lambda h: [Finding("x", 0)], on=event),)))
        assert bool(engine.feed(record)) == (event == on)


def test_the_last_look_comes_once_with_the_end_record_or_before_it():
    engine = Engine(Selection((check("a", lambda h: [Finding("x", 0)], on=On.END),)))
    assert engine.feed(Step(step=1)) == []
    assert [a.check for a in engine.finish()] == ["a"]
    assert engine.feed(End()) == []
    assert engine.issues[0].count == 1
    other = Engine(Selection((check("a", lambda h: [Finding("x", 0)], on=On.END),)))
    assert [a.check for a in other.feed(End())] == ["a"]
    assert other.finish() == []


def test_our_own_lines_and_unknown_ones_are_ignored():
    engine = Engine(Selection((check("a", lambda h: [Finding("x", h.step)]),)))
    for record in (Alert(), Note(), Blackbox(), Unknown(name="new", data={})):
        assert engine.feed(record) == []
    assert engine.history.steps_seen == 0


def test_a_header_that_comes_again_changes_nothing():
    engine = Engine(Selection(()))
    for record in (RunHeader(run_id="a"), Step(step=1), RunHeader(run_id="b"), Step(step=2)):
        engine.feed(record)
    assert engine.history.header.run_id == "a"
    assert engine.history.steps_seen == 2


def test_a_check_that_raises_is_switched_off_and_said():
    def broken(history: History) -> list[Finding]:
        if history.step == 20:
            raise ZeroDivisionError("oh")
        return between(10, 100)(history)

    engine, alerts = run(check("a", broken), check("b", between(30, 40)))
    assert engine.failed == {"a": "ZeroDivisionError: oh"}
    assert states(alerts) == [("opened", 10)]
    assert states(alerts, "b")[0] == ("opened", 30)
    assert engine.not_run()["a"] == "switched off: ZeroDivisionError: oh"


def test_a_keyboard_interrupt_in_a_check_belongs_to_the_host():
    def interrupted(history: History) -> list[Finding]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(check("a", interrupted))


def test_numpy_warnings_of_a_check_do_not_reach_the_host():
    engine, _ = run(check("a", lambda h: [] if np.float64(1) / np.float64(0) > 5 else [Finding("x", 0)]))
    assert not engine.failed


# ------------------------------------------------------------------------------------------ not run


def test_not_run_is_not_passed():
    engine, _ = run(
        check("missing", lambda h: [], reads=("loss", "val_loss", "wait_time_s")),
        check("waiting", lambda h: NotReady(f"needs 64 steps, {h.steps_seen} seen")),
        check("never", lambda h: [], on=On.EVAL),
        check("passed", lambda h: []),
        check("once", lambda h: [] if h.step == 3 else NotReady("no")),
        steps=12,
    )
    assert engine.not_run() == {
        "missing": "no `val_loss`, `wait_time_s`",
        "never": "no `eval` record",
        "waiting": "not ready: needs 64 steps, 12 seen",
    }


def test_val_loss_may_have_another_name():
    engine = Engine(Selection((check("a", lambda h: [Finding("x", 1)], on=On.EVAL, reads=("val_loss",)),)))
    assert engine.not_run() == {"a": "no `val_loss`"}
    assert len(engine.feed(Eval(metrics={"eval_loss": 1.0}))) == 1
    assert engine.not_run() == {}


def test_ignored_checks_are_listed():
    assert Engine(Selection((), ignored=("a",))).not_run() == {"a": "ignored"}


# --------------------------------------------------------------------------------------------- score


@pytest.mark.parametrize(
    ("critical", "warning", "info", "score"),
    [(0, 0, 0, 100), (1, 2, 0, 66), (0, 0, 3, 94), (0, 0, 50, 90), (6, 0, 0, 0), (2, 3, 9, 29)],
)
def test_health_score(critical, warning, info, score):
    assert health_score([CRITICAL] * critical + [WARNING] * warning + [INFO] * info) == score


# ------------------------------------------------------------------------------------------- replay


def test_the_engine_of_a_header_has_its_limits_and_says_what_it_does_not_know():
    slug = next(iter(select().checks)).slug
    name, value = next(iter(select().limits()[slug].items()))
    header = RunHeader(
        limits={slug: {name: value + 1, "from_the_future": 3}, "no-such-check": {"x": 1}},
        ignore=["no-such-check-either", select().checks[1].slug],
    )
    engine = Engine.for_header(header)
    assert engine.skipped == ("no-such-check-either", f"{slug}.from_the_future", "no-such-check")
    assert select().checks[1].slug in engine.not_run()
    chosen = next(c for c in engine._selection.checks if c.slug == slug)
    assert getattr(chosen.limits, name) == value + 1


scalars = st.one_of(st.none(), st.floats(width=32), st.sampled_from([0.0, math.nan, math.inf, 1e30]))


@st.composite
def runs(draw: st.DrawFn) -> list[Record]:
    """Runs of any values with evaluations and lines of any length."""
    count = draw(st.integers(1, 120))
    pattern = draw(st.lists(scalars, min_size=1, max_size=30))
    ratios = draw(st.lists(scalars, min_size=1, max_size=5))
    columns = draw(st.lists(st.lists(scalars, min_size=3, max_size=3), min_size=1, max_size=5))

    def cycle(values: list[Any]) -> Callable[[int], Any]:
        return lambda n: values[n % len(values)]

    return records(
        loss=cycle(pattern),
        steps=count,
        lr=draw(st.sampled_from([None, 0.0, 0.1])),
        grad_norm=cycle(draw(st.permutations(pattern))),
        update_ratio=cycle(ratios),
        clipped=cycle([True, None, False]),
        stale_gradients=cycle(draw(st.lists(st.sampled_from([None, True, False]), min_size=1, max_size=4))),
        interval_steps=draw(st.integers(1, 40)),
        epoch_steps=draw(st.sampled_from([None, 10, 33])),
        columns={
            "grad_norms": cycle(columns),
            "weight_norms": cycle(columns),
            "activations.rms": cycle(columns),
        },
        columns_every=draw(st.integers(1, 7)),
        evals={n: {"val_loss": float(n % 3) or math.nan} for n in range(5, count, 5)},
        intervals={"rss_bytes": lambda n: n * 10**9, "wait_share": 0.4},
        batched=draw(st.sampled_from([None, 3, 50])),
        metrics={"m": cycle(pattern)},
    )


@settings(max_examples=60, deadline=None)
@given(runs())
def test_every_check_says_the_same_live_and_in_replay(stream):
    live, replay = Engine(select()), Engine(select())
    for record in stream:
        said = live.feed(record)
        again = replay.feed(decode(encode(record)))
        assert list(map(encode, said)) == list(map(encode, again))
    assert list(map(encode, live.finish())) == list(map(encode, replay.finish()))
    assert not live.failed, live.failed
    assert live.not_run() == replay.not_run()
    assert live.health_score() == replay.health_score()
    assert list(map(encode, live.issues)) == list(map(encode, replay.issues))


found_here = st.tuples(st.sampled_from("abc"), st.sampled_from(Severity), st.integers(0, 60))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(found_here), max_size=60))
def test_incidents_always_hold_their_rules(script):
    def find(slug: str) -> Find:
        return lambda h: [Finding("x", o, severity=s) for g, s, o in script[h.step - 1] if g == slug]

    causes = {"a": Cause.LOSS, "b": Cause.WIRING, "c": Cause.GRADIENT}
    checks = [check(s, find(s), cause=c) for s, c in causes.items()]
    engine, alerts = run(*checks, steps=len(script))
    told: dict[str, Alert] = {}
    for alert in alerts:
        before = told.get(alert.check)
        if alert.state == "opened":
            assert before is None or before.state == "resolved"
        else:
            assert before is not None
        told[alert.check] = alert
    for incident in engine.incidents:
        members = [incident.root, *incident.symptoms]
        assert [m.root for m in members] == [True] + [False] * len(incident.symptoms)
        assert incident.root.severity != "info" or {m.severity for m in members} == {"info"}
        assert told[incident.root.check].root
    assert sorted(m.check for i in engine.incidents for m in [i.root, *i.symptoms]) == sorted(told)
    assert all(told[i.check].incident == i.incident for i in engine.issues)


@pytest.mark.parametrize(
    ("rate", "named"),
    [
        (lambda i: 0.1 if i < 150 else 100.0, True),
        (lambda i: 0.1 if i < 150 else 0.15, False),  # a small rise explains nothing
        (lambda i: 0.1 if i < 100 else 100.0, False),  # too long ago
        (lambda _: 0.1, False),
    ],
)
def test_the_explanation_names_a_jump_of_the_learning_rate(rate, named):
    losses = [1.0] * 151 + [math.nan] * 20
    engine = Engine(Selection(checks=tuple(c for c in select().checks if c.slug == "loss-nonfinite")))
    for record in records(loss=losses, lr=rate):
        engine.feed(record)
    said = "the learning rate, which rose from 0.1 to 100 at step 150" in engine.incidents[0].explanation
    assert said is named


# ------------------------------------------------------------------------------------------ several ranks


def across(find: Callable[[Any], Any], **more: Any) -> Check:
    return check("across", find, on=On.END, scope=Scope.RUN, **more)


def test_a_check_that_compares_ranks_never_looks_live():
    looked: list[Any] = []
    engine = Engine(Selection((across(lambda run: looked.append(run) or []),)))
    for record in [*records([1.0] * 60), End()]:
        engine.feed(record)
    engine.finish()
    assert looked == []
    assert engine.not_run() == {"across": "needs the files of several ranks, read together"}


def test_comparing_ranks_adds_to_issues_incidents_and_score():
    run: Any = object()
    seen: list[Any] = []

    def find(given: Any) -> list[Finding]:
        seen.append(given)
        return [Finding("rank 1 is slow", since_step=7)]

    engine = Engine(Selection((across(find, severity=CRITICAL),)))
    for record in records([1.0] * 60):
        engine.feed(record)
    engine.finish()
    (alert,) = engine.compare(run)
    assert seen == [run]
    assert (alert.state, alert.check, alert.since_step, alert.root) == ("opened", "across", 7, True)
    assert [i.check for i in engine.issues] == ["across"]
    assert [i.root.check for i in engine.incidents] == ["across"]
    assert engine.health_score() == 80
    assert engine.not_run() == {}


def test_comparing_ranks_may_not_be_able_to_tell_or_fail():
    run: Any = object()
    cases = {
        "not ready: too short": (lambda _: NotReady("too short"), ()),
        "switched off: KeyError: 'x'": (lambda _: {}["x"], ()),
        "no `grad_norms`": (lambda _: [], ("grad_norms",)),
    }
    for reason, (find, reads) in cases.items():
        engine = Engine(Selection((across(find, reads=reads),)))
        engine.finish()
        assert engine.compare(run) == []
        assert engine.not_run() == {"across": reason}
