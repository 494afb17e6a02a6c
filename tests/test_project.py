"""``[tool.torchwatch]`` of the working directory: read, merged, refused."""

from pathlib import Path

import pytest
from torch import nn

from torchwatch import WatchConfig, Watcher
from torchwatch.errors import ConfigError
from torchwatch.project import Project, read_project
from torchwatch.runfile import read_records

SECTION = """
[tool.torchwatch]
ignore = ["noisy-loss"]

[tool.torchwatch.limits.overfitting]
patience = 5
"""


def write(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return folder


def test_limits_and_ignores_are_read(tmp_path):
    found = read_project(write(tmp_path, SECTION))
    assert found == Project({"overfitting": {"patience": 5}}, ("noisy-loss",))


@pytest.mark.parametrize(
    "text",
    ["", "[project]\nname = 'x'\n", "[tool.ruff]\nline-length = 1\n", "[project]\nname = 'torchwatch-fan'\n"],
)
def test_files_that_say_nothing_to_us(text, tmp_path):
    assert read_project(write(tmp_path, text)) == Project()


def test_no_file_at_all_and_none_from_above(tmp_path):
    assert read_project(tmp_path) == Project()
    (write(tmp_path, SECTION) / "below").mkdir()
    assert read_project(tmp_path / "below") == Project()


def test_a_broken_file_is_only_our_affair_where_it_speaks_of_us(tmp_path):
    assert read_project(write(tmp_path, "[tool.other\n")) == Project()
    with pytest.raises(ConfigError, match=r"^pyproject.toml cannot be read: .*line 1"):
        read_project(write(tmp_path, "[tool.torchwatch\n"))
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe torchwatch")
    assert read_project(tmp_path) == Project()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ignore = ['noisy-los']", "there is no check 'noisy-los'; did you mean 'noisy-loss'?"),
        ("[tool.torchwatch.limits.overfiting]\npatience = 1", "did you mean 'overfitting'?"),
        ("[tool.torchwatch.limits.overfitting]\npatient = 1", "did you mean 'patience'?"),
        ("[tool.torchwatch.limits.overfitting]\npatience = 'five'", "must be a number, not 'five'"),
        ("[tool.torchwatch.limits.overfitting]\npatience = 1.5", "must be a whole number"),
        ("limits = 5", "limits must be a mapping"),
        ("limits.overfitting = 5", "limits of check 'overfitting' must be a mapping"),
        ("ignore = 'noisy-loss'", "ignore must be a list of checks, not 'noisy-loss'"),
        ("ignores = []", "has no key 'ignores'; did you mean 'ignore'?"),
        ("budget = 0.1", "has no key 'budget'; known: limits, ignore"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest_match(text, said, tmp_path):
    with pytest.raises(ConfigError, match=r"^pyproject.toml: \[tool.torchwatch\]") as error:
        read_project(write(tmp_path, f"[tool.torchwatch]\n{text}\n"))
    assert said in str(error.value)


def test_a_section_that_is_no_table(tmp_path):
    with pytest.raises(ConfigError, match="must be a table, not 5"):
        read_project(write(tmp_path, "[tool]\ntorchwatch = 5\n"))


def test_what_is_said_elsewhere_lies_on_top():
    project = Project({"a": {"x": 1, "y": 2}}, ("c",))
    assert project.under({"a": {"x": 5}, "b": {"z": 3}}, ("d", "c")) == (
        {"a": {"x": 5, "y": 2}, "b": {"z": 3}},
        ("c", "d"),
    )
    assert project.limits == {"a": {"x": 1, "y": 2}}


def test_what_differs_from_a_recorded_run():
    project = Project({"a": {"x": 1, "y": 2}, "b": {"z": 3}}, ("c", "d"))
    assert project.beside({"a": {"x": 1.0, "y": 7}}, ("b", "c")) == Project({"a": {"y": 2}}, ("d",))
    assert project.beside({"a": {"x": 1, "y": 2}, "b": {"z": 3}}, ("d", "c")) == Project()


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, SECTION))
    return tmp_path


def header_of(**keywords):
    config = WatchConfig(terminal=False, energy=False, drain_s=60)
    model = nn.Linear(2, 2)
    with Watcher(model, "run.jsonl", config=config, **keywords) as watch:
        pass
    return next(read_records(watch.path))


def test_a_watcher_records_with_the_settings_of_its_directory(project):
    header = header_of()
    assert header.limits["overfitting"]["patience"] == 5
    assert header.ignore == ["noisy-loss"]


def test_the_keywords_of_a_watcher_beat_them(project):
    header = header_of(limits={"overfitting": {"patience": 7}}, ignore=["loss-spike"])
    assert header.limits["overfitting"]["patience"] == 7
    assert header.ignore == ["noisy-loss", "loss-spike"]


def test_a_watcher_refuses_what_does_not_exist_before_training_begins(tmp_path, monkeypatch):
    monkeypatch.chdir(write(tmp_path, "[tool.torchwatch]\nignore = ['noisy-los']\n"))
    with pytest.raises(ConfigError, match="did you mean 'noisy-loss'"):
        Watcher(nn.Linear(2, 2), "run.jsonl")
    assert not (tmp_path / "run.jsonl").exists()
