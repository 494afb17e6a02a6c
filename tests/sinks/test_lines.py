import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.helpers_runs import HOSTILE, alert, header, hostile_run, is_harmless, steps
from torchwatch.records import End, Note, Record
from torchwatch.sinks.lines import AlertLines, alert_text, end_text, header_text, note_text, show


def rendered(records: list[Record], *, terminal: bool = False, width: int = 80) -> str:
    out = io.StringIO()
    colours = "truecolor" if terminal else None
    console = Console(file=out, force_terminal=terminal, width=width, color_system=colours, markup=False)
    lines = AlertLines()
    for record in records:
        for line in lines.feed(record):
            show(console, line)
    for line in lines.finish():
        show(console, line)
    return out.getvalue()


def test_alert_says_severity_step_check_layer_title_and_fix() -> None:
    assert alert_text(alert(step=1234, since_step=1200)).plain.splitlines() == [
        "WARNING   step 1,234  dead-units  conv2  92 % of units are dead (since step 1,200)",
        "          fix: Use LeakyReLU.",
    ]


def test_layer_is_not_repeated_when_the_title_names_it() -> None:
    line = alert_text(alert(title="conv2: 92 % of units are dead"), fix=False).plain
    assert line == "WARNING   step 60  dead-units  conv2: 92 % of units are dead"


def test_root_module_has_a_name() -> None:
    line = alert_text(alert(layer="", title="too large"), fix=False).plain
    assert line.endswith("dead-units  (the model itself)  too large")


def test_resolved_alert_needs_no_fix() -> None:
    line = alert_text(alert(state="resolved", severity="critical", step=90)).plain
    assert line == "RESOLVED  step 90  dead-units  conv2  92 % of units are dead"


def test_end_and_header_lines() -> None:
    end = End(status="crashed", steps=1500, epochs=2, time_s=65.0, health_score=73, error="ValueError: boom")
    assert end_text(end).plain.splitlines() == [
        "crashed   1,500 steps, 2 epochs in 1 min 05 s · health 73/100 (good)",
        "          ValueError: boom",
    ]
    lost = end_text(End(complete=False, lost_lines=3, dropped=4)).plain
    assert lost.endswith("incomplete: 3 lines and 4 step details lost")
    assert header_text(header(rank=1, world=2)).plain == (
        "run       digits · SmallNet, 12,345 parameters · started 2026-01-02T03:04:05+00:00 · rank 1 of 2"
    )


def test_many_layers_at_one_step_are_counted() -> None:
    shown = rendered([alert(layer=f"layer{i}") for i in range(10)] + list(steps(61, 61))).splitlines()
    assert [line.split()[4] for line in shown if line.startswith("WARNING")] == ["layer0", "layer1", "layer2"]
    assert sum("fix:" in line for line in shown) == 1
    assert shown[-1] == "          … and 7 more of dead-units: layer3, layer4, layer5 …"


def test_bursts_of_different_steps_are_counted_apart() -> None:
    shown = rendered([alert(layer=f"l{i}", step=step) for step in (60, 61) for i in range(4)])
    assert shown.count("… and 1 more of dead-units: l3\n") == 2


def test_updates_show_only_when_worse_and_infos_resolve_in_silence() -> None:
    info = alert(severity="info")
    assert rendered([info, alert(severity="info", state="updated")]).count("INFO") == 1
    worse = alert(severity="critical", state="updated", step=70)
    assert "CRITICAL  step 70" in rendered([info, worse, worse])
    assert rendered([info, worse, worse]).count("CRITICAL") == 1
    assert "RESOLVED" not in rendered([info, alert(severity="info", state="resolved")])
    assert "RESOLVED" in rendered([info, worse, alert(state="resolved", step=80)])


def test_reopened_issue_is_shown_again() -> None:
    again = rendered([alert(), alert(state="resolved", step=70), alert(step=80)])
    assert again.count("WARNING") == 2


def test_header_in_the_middle_begins_anew() -> None:
    shown = rendered([alert(), header(run_id="r2"), alert(state="updated")])
    assert shown.count("WARNING") == 2


@pytest.mark.parametrize("width", [40, 80, 120])
def test_terminal_wraps_under_the_indentation(width: int) -> None:
    shown = rendered([alert(fix="word " * 60)], terminal=True, width=width)
    assert is_harmless(shown, colours=True)
    import re

    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert all(len(line.rstrip()) <= width for line in plain)
    assert all(line.startswith(" " * 10) for line in plain[1:])
    assert "".join(plain).count("word") == 60


def test_pipe_never_wraps_and_never_colours() -> None:
    shown = rendered([alert(fix="word " * 60)])
    assert len(shown.splitlines()) == 2
    assert "\x1b" not in shown


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_text_is_shown_escaped(text: str, terminal: bool) -> None:
    shown = rendered(hostile_run(text), terminal=terminal)
    assert is_harmless(shown, colours=terminal)
    assert text[:100].isprintable() is False or text[:20] in shown.replace("\n", "")


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=200))
def test_any_text_is_shown_escaped(text: str) -> None:
    note, end = Note(message=text), End(status=text, error=text)
    for line in (alert_text(alert(title=text, layer=text, fix=text, check=text)), note_text(note)):
        assert is_harmless(line.plain)
    assert is_harmless(end_text(end).plain)
    assert is_harmless(header_text(header(name=text, model=text)).plain)
    assert is_harmless(rendered([alert(title=text, layer=text, fix=text)], terminal=True), colours=True)


def test_onset_is_not_repeated_when_the_title_names_it() -> None:
    line = alert_text(alert(title="Loss is NaN since step 50", step=60, since_step=50), fix=False).plain
    assert line.endswith("Loss is NaN since step 50")
