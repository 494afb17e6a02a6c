from __future__ import annotations

import json
import subprocess
import sys
from types import MappingProxyType

import pytest
import torch

from torchwatch.__main__ import main
from torchwatch.commands import demo
from torchwatch.commands._demo.faults import FAULTS, HEALTHY, Fault, Recipe
from torchwatch.runfile import read_records


def torchwatch(*arguments, cwd):
    """The command line in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "torchwatch", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def flight(tmp_path_factory):
    """One whole demo: where it was run, and what it printed."""
    directory = tmp_path_factory.mktemp("flight")
    return directory, torchwatch("demo", "--out", "out", cwd=directory)


@pytest.fixture
def brief(monkeypatch):
    """Two runs of a few steps, with a mistake that is none: nothing can be found."""
    monkeypatch.setattr(demo, "HEALTHY", Recipe(epochs=1))
    fault = Fault(planted="nothing at all", recipe=Recipe(epochs=1), roots=("overfitting",), onset=(1, 9))
    monkeypatch.setattr(demo, "FAULTS", MappingProxyType({"dead-relu": fault}))


@pytest.fixture
def plotless(monkeypatch):
    """Drawing the reports takes seconds and is tested elsewhere."""
    monkeypatch.setattr(demo, "_report", lambda run: run.with_suffix("") / "report.html")


def test_the_demo_names_the_mistake_and_shows_it_live(flight):
    _, done = flight
    assert done.returncode == 0, done.stderr
    shown = {line[:9].strip(): line[9:] for line in done.stdout.splitlines()}
    assert "conv3" in shown["planted"]
    assert "dead-units in relu3 since step 150" in shown["found"]
    assert shown["fits"].startswith("yes")
    assert shown["healthy"].startswith("quiet")
    healthy, faulty = done.stderr.split("2/2")
    assert "1/2" in healthy
    assert "WARNING" not in healthy
    assert "CRITICAL" not in healthy
    assert "dead-units" in faulty


@pytest.mark.parametrize("name", ["healthy", "dead-relu"])
def test_the_demo_leaves_runs_and_their_reports(name, flight):
    directory, _ = flight
    assert (directory / "out" / f"{name}.jsonl").stat().st_size > 10_000
    for report in ("report.html", "report.md", "report.json"):
        assert (directory / "out" / name / report).stat().st_size > 1000


def test_tail_shows_the_alerts_of_the_demo(flight):
    directory, _ = flight
    done = torchwatch("tail", "--no-follow", "out/dead-relu.jsonl", cwd=directory)
    assert done.returncode == 0, done.stderr
    assert "dead-units" in done.stdout
    assert "relu3" in done.stdout


def test_diagnose_finds_the_same_as_the_demo(flight):
    directory, _ = flight
    done = torchwatch("diagnose", "--json", "out/dead-relu.jsonl", cwd=directory)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["replay_matches"] is True
    assert "dead-units" in {i["check"] for i in found["issues"] if i["root"]}


def test_postmortem_opens_the_run_of_the_demo(flight):
    directory, _ = flight
    done = torchwatch("postmortem", "out/dead-relu.jsonl", "--out", "autopsy", cwd=directory)
    assert done.returncode == 0, done.stderr
    page = (directory / "autopsy" / "report.html").read_text(encoding="utf-8")
    assert "dead-units" in page
    assert "relu3" in page


def test_what_is_there_already_is_kept(brief, plotless, tmp_path, capsys):
    threads = torch.get_num_threads()
    before = (main(["demo", "--out", str(tmp_path)]), *sorted(tmp_path.glob("*.jsonl")))
    content = [path.read_bytes() for path in before[1:]]
    main(["demo", "--out", str(tmp_path)])
    assert [path.read_bytes() for path in before[1:]] == content
    assert (tmp_path / "dead-relu-2.jsonl").exists()
    assert f"{tmp_path / 'healthy-2'}" in capsys.readouterr().out
    assert torch.get_num_threads() == threads


def test_a_mistake_that_was_not_found_is_exit_code_1(brief, plotless, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "found    nothing" in shown
    assert "no: expected overfitting, beginning in steps 1 to 9" in shown


def test_json_holds_what_was_planted_and_found(brief, plotless, tmp_path, capsys):
    assert main(["demo", "--json", "--out", str(tmp_path)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["planted"] == "nothing at all"
    assert said["found"] is None
    assert said["fits"] is False
    assert said["quiet"] is True
    assert said["expected"] == {"roots": ["overfitting"], "layers": [], "onset": [1, 9]}
    assert said["faulty"]["run"] == str(tmp_path / "dead-relu.jsonl")
    assert said["healthy"]["health_score"] >= 90


def test_the_recipe_is_in_the_run(brief, plotless, tmp_path):
    main(["demo", "--out", str(tmp_path)])
    header = next(iter(read_records(tmp_path / "dead-relu.jsonl")))
    assert header.hyperparameters["epochs"] == 1
    assert header.hyperparameters["lr"] == HEALTHY.lr


def test_without_scikit_learn_one_sentence_says_what_to_install(brief, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert main(["demo", "--out", str(tmp_path)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert 'pip install "torchwatch-monitor[demo]"' in last
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_mistake_is_refused(capsys):
    assert main(["demo", "--fault", "gremlins"]) == 2
    said = capsys.readouterr().err
    assert "gremlins" in said
    assert len(said.splitlines()) == 1


def test_help_names_every_mistake_without_torch():
    code = (
        "import sys, torchwatch.__main__ as cli; cli.main(['demo', '--help']); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
    assert all(name in "".join(done.stdout.split()) for name in FAULTS)
