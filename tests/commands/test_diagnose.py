import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers_cli import call
from tests.helpers_runs import (
    HOSTILE,
    alert,
    faulty_run,
    header,
    hostile_run,
    is_harmless,
    whole_run,
    write_run,
)
from torchwatch.commands.diagnose import parsed_limits, summary_lines, symptom_lines
from torchwatch.diagnosis import diagnose
from torchwatch.errors import ConfigError
from torchwatch.records import Record


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    return write_run(tmp_path / "faulty.jsonl", faulty_run())


def test_incident_with_root_explanation_and_fix(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = call(monkeypatch, "diagnose", faulty).out.splitlines()
    assert lines[0].startswith(f"run       {faulty} · SmallNet · unfinished: 80 steps, 0 epochs in 8.0 s")
    assert "health    80/100 (good) · 1 critical issue" in lines
    start = lines.index("Incident 1")
    assert lines[start + 1].startswith("CRITICAL  since step 50  loss-nonfinite  ")
    assert lines[start + 2].startswith("          Since step 50: ")
    assert "What to do:" in lines[start + 2]


def test_what_was_not_run_is_listed_with_the_reason(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = call(monkeypatch, "diagnose", faulty).out
    listed = shown[shown.index("Not run, so nothing is known about") :]
    assert any(
        line.split(maxsplit=1) == ["vanishing-gradients", "no `grad_norms`"] for line in listed.splitlines()
    )


def test_json_is_the_diagnosis(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(call(monkeypatch, "diagnose", faulty, "--json").out)
    assert body["issues"][0]["check"] == "loss-nonfinite"
    assert body["incidents"][0]["root"]["check"] == "loss-nonfinite"
    timing = {"wall_s", "steps_per_s"}
    expected = json.loads(json.dumps(diagnose(faulty).as_json()))
    assert {k: v for k, v in body.items() if k not in timing} == {
        k: v for k, v in expected.items() if k not in timing
    }


def test_ignore_and_limit_reach_the_checks(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no issue" in call(monkeypatch, "diagnose", faulty, "--ignore", "loss-nonfinite").out
    later = call(monkeypatch, "diagnose", faulty, "--limit", "loss-nonfinite.consecutive_steps=1000")
    assert "no issue" in later.out


def test_limits_are_parsed() -> None:
    assert parsed_limits([]) == {}
    assert parsed_limits(["a-b.c=5", "a-b.d=1e-3", "x.y=-2"]) == {
        "a-b": {"c": 5, "d": 1e-3},
        "x": {"y": -2},
    }
    assert isinstance(parsed_limits(["a.b=5"])["a"]["b"], int)


@pytest.mark.parametrize("text", ["", "a", "a.b", "a=5", ".b=5", "a.=5", "a.b=", "a.b=many", "a.b=nan", "=5"])
def test_malformed_limit_is_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--limit needs CHECK\.LIMIT=NUMBER, such as overfitting"):
        parsed_limits([text])


@pytest.mark.parametrize(
    ("files", "said"), [((), "1 rank with a file"), ((1, 3), "3 ranks with a file")], ids=str
)
def test_one_rank_is_judged_and_the_others_are_counted(
    files: tuple[int, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(rank: int, *records: Record) -> Path:
        name = "run.jsonl" if rank == 0 else f"run.rank{rank}.jsonl"
        return write_run(tmp_path / name, [header(rank=rank, world=4), *records])

    run = write(0, *faulty_run()[1:])
    alone = diagnose(run).as_json()
    for rank in files:
        write(rank, *whole_run()[1:])
    shown = call(monkeypatch, "diagnose", run)
    assert shown.out.splitlines()[1] == f"{'':10}rank 0 of 4 was judged; {said}"
    body = json.loads(call(monkeypatch, "diagnose", run, "--json").out)
    assert (body["rank"], body["world"], body["rank_files"]) == (0, 4, 1 + len(files))
    assert {k: body[k] for k in ("issues", "health_score", "steps")} == {
        k: json.loads(json.dumps(alone[k])) for k in ("issues", "health_score", "steps")
    }


def test_what_was_seen_on_other_ranks_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run.jsonl", [header(world=3), *whole_run()[1:]])
    write_run(tmp_path / "run.rank1.jsonl", [header(rank=1, world=3), *whole_run()[1:]])
    write_run(tmp_path / "run.rank2.jsonl", [header(rank=2, world=3), *whole_run()[1:60]])
    lines = call(monkeypatch, "diagnose", run).out.splitlines()
    assert "rank 1    finished: 100 steps, health 93/100 · dead-units" in lines
    assert any(line.startswith("rank 2    unfinished: ") and line.endswith("no issue") for line in lines)
    ranks = json.loads(call(monkeypatch, "diagnose", run, "--json").out)["ranks"]
    assert [(rank["rank"], rank["status"], rank["issues"]) for rank in ranks] == [
        (1, "finished", {"dead-units": "warning"}),
        (2, "unfinished", {}),
    ]


def test_a_run_on_one_rank_says_nothing_of_ranks(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "rank" not in call(monkeypatch, "diagnose", faulty).out.splitlines()[1]
    assert json.loads(call(monkeypatch, "diagnose", faulty, "--json").out)["world"] == 1


def test_doubts_about_the_file_are_said(faulty: Path) -> None:
    found = dataclasses.replace(
        diagnose(faulty),
        torn_lines=2,
        unknown_limits=("gone", "overfitting.gone"),
        replay_matches=False,
        replay_difference="step 5: nothing recorded, x replayed",
    )
    assert [line.plain.strip() for line in summary_lines(found)[1:]] == [
        "2 lines could not be read",
        "not known to this version, so left out: gone, overfitting.gone",
        "differs from what was seen live: step 5: nothing recorded, x replayed",
    ]
    assert len(summary_lines(diagnose(faulty))) == 1


def test_symptoms_of_one_check_are_counted() -> None:
    symptoms = [alert(layer=f"l{i}") for i in range(5)] + [alert(check="other", layer=None)]
    lines = [line.plain for line in symptom_lines(symptoms)]
    assert [line.split()[4] for line in lines[:3]] == ["dead-units"] * 3
    assert lines[3] == "          … and 2 more of dead-units: l3, l4"
    assert "other" in lines[4]


def test_long_reading_is_said_on_standard_error(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 100_000, 1))
    monkeypatch.setattr("torchwatch.commands._shared.Waiting.__init__.__defaults__", (lambda: next(ticks),))
    shown = call(monkeypatch, "diagnose", faulty, "--json")
    assert shown.err.startswith("torchwatch: reading: step 1, 2.0 s so far\n")
    assert json.loads(shown.out)["steps"] == 80
    shown = call(monkeypatch, "diagnose", faulty, terminal=True)
    assert "\r\x1b[2Kreading: step" in shown.err
    assert shown.err.endswith("\r\x1b[2K")


def test_short_reading_says_nothing(faulty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(monkeypatch, "diagnose", faulty).err == ""


def test_limits_of_another_version_are_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = header(limits={"gone": {"x": 1}, "overfitting": {"gone": 1}}, ignore=["forgotten"])
    path = write_run(tmp_path / "run.jsonl", [first, *whole_run()[1:]])
    shown = call(monkeypatch, "diagnose", path)
    assert shown.code == 0
    assert "not known to this version, so left out: " in shown.out


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_text_is_escaped(
    text: str, terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(tmp_path / "hostile.jsonl", hostile_run(text))
    shown = call(monkeypatch, "diagnose", path, terminal=terminal)
    assert shown.code == 0
    assert is_harmless(shown.out, colours=terminal)
    assert is_harmless(call(monkeypatch, "diagnose", path, "--json").out)


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(
    width: int, faulty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    shown = call(monkeypatch, "diagnose", faulty, terminal=True, width=width).out
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= width


PROJECT = """
[tool.torchwatch]
ignore = ["noisy-loss"]
[tool.torchwatch.limits.loss-nonfinite]
consecutive_steps = 1000
"""


@pytest.fixture
def in_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_settings_of_the_working_directory_count_and_are_said(
    faulty: Path, in_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call(monkeypatch, "diagnose", faulty)
    assert "no issue" in shown.out
    assert shown.err == (
        "torchwatch: pyproject.toml in this directory is used as well: "
        "loss-nonfinite.consecutive_steps=1000, without noisy-loss\n"
    )
    body = json.loads(call(monkeypatch, "diagnose", faulty, "--json").out)
    assert body["not_run"]["noisy-loss"] == "ignored"


def test_options_beat_the_settings_of_the_working_directory(
    faulty: Path, in_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call(monkeypatch, "diagnose", faulty, "--limit", "loss-nonfinite.consecutive_steps=1")
    assert "loss-nonfinite" in shown.out
    arguments = ("--limit", "loss-nonfinite.consecutive_steps=1", "--ignore", "loss-spike", "--json")
    body = json.loads(call(monkeypatch, "diagnose", faulty, *arguments).out)
    ignored = [slug for slug, reason in body["not_run"].items() if reason == "ignored"]
    assert ignored == ["loss-spike", "noisy-loss"]


def test_a_run_recorded_with_the_same_settings_is_still_compared_with_what_was_seen_live(
    in_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = header(limits={"loss-nonfinite": {"consecutive_steps": 1000}}, ignore=["noisy-loss", "loss-spike"])
    path = write_run(in_project / "run.jsonl", [same, *whole_run()[1:]])
    shown = call(monkeypatch, "diagnose", path, "--json")
    assert shown.err == ""
    assert json.loads(shown.out)["replay_matches"] is not None


def test_checks_that_the_run_ignored_stay_ignored(in_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = header(ignore=["loss-spike", "forgotten"])
    path = write_run(in_project / "run.jsonl", [other, *faulty_run()[1:]])
    body = json.loads(call(monkeypatch, "diagnose", path, "--json").out)
    ignored = [slug for slug, reason in body["not_run"].items() if reason == "ignored"]
    assert ignored == ["loss-spike", "noisy-loss"]


def test_wrong_settings_of_the_working_directory_are_one_sentence(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.torchwatch]\nignore = ['noisy-los']\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shown = call(monkeypatch, "diagnose", faulty)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == (
        "torchwatch: pyproject.toml: [tool.torchwatch]: there is no check 'noisy-los'; "
        "did you mean 'noisy-loss'?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ignore", "noisy-los"), "there is no check 'noisy-los'; did you mean 'noisy-loss'?"),
        (("--limit", "overfiting.patience=5"), "there is no check 'overfiting'; did you mean 'overfitting'?"),
        (("--limit", "overfitting.patient=5"), "has no limit 'patient'; did you mean 'patience'?"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_match(
    arguments: tuple[str, str], said: str, faulty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = call(monkeypatch, "diagnose", faulty, *arguments)
    assert (shown.code, shown.out) == (2, "")
    assert said in shown.err


def test_as_a_user_runs_it(faulty: Path, in_project: Path) -> None:
    command = [sys.executable, "-m", "torchwatch", "diagnose", faulty.name, "--fail-on", "critical"]
    quiet = subprocess.run(command, cwd=in_project, capture_output=True, text=True, check=False)
    assert quiet.returncode == 0, quiet.stderr
    (in_project / "pyproject.toml").unlink()
    loud = subprocess.run(command, cwd=in_project, capture_output=True, text=True, check=False)
    assert (loud.returncode, loud.stderr) == (1, "")
    assert "loss-nonfinite" in loud.stdout
