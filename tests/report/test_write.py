from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from torchwatch.errors import UsageError
from torchwatch.report import write
from torchwatch.report.write import default_directory, write_report


@pytest.mark.parametrize(
    ("run", "directory"),
    [
        ("runs/a.jsonl", "runs/a"),
        ("runs/a.jsonl.gz", "runs/a"),
        ("a.b.jsonl", "a.b"),
        ("a", "a-report"),
        ("a.txt", "a.txt-report"),
        (".jsonl", ".jsonl-report"),
    ],
)
def test_the_report_goes_beside_its_run(run: str, directory: str):
    assert default_directory(Path(run)) == Path(directory)


@pytest.fixture
def drawn(monkeypatch, pictures_of):
    """Writing without drawing again."""
    monkeypatch.setattr(write, "draw_all", lambda report, progress: pictures_of("faulty"))


def test_files_are_written_private_and_whole(report_of, tmp_path, drawn):
    paths = write_report(report_of("faulty"), tmp_path / "deep" / "report")
    names = {p.name for p in paths}
    assert paths[0].name == "report.html"
    assert {
        "report.html",
        "report.md",
        "report.json",
        "loss.png",
        "gradient_flow.png",
        "timeline.png",
    } <= names
    assert {p.name for p in (tmp_path / "deep" / "report").iterdir()} == names
    for path in paths:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_size > 0


def test_new_directories_are_private_and_old_ones_stay_as_they_are(report_of, tmp_path, drawn):
    (tmp_path / "shared").mkdir(mode=0o755)
    write_report(report_of("faulty"), tmp_path / "shared" / "deep" / "report")
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*") if p.is_dir()}
    assert modes == {"shared": 0o755, "deep": 0o700, "report": 0o700}


def test_pictures_that_markdown_links_are_there(report_of, tmp_path, drawn):
    write_report(report_of("faulty"), tmp_path)
    linked = re.findall(r"\]\((\w+\.png)\)", (tmp_path / "report.md").read_text())
    assert len(linked) >= 9
    assert all((tmp_path / name).exists() for name in linked)


def test_an_old_report_is_replaced_and_made_private(report_of, tmp_path, drawn):
    (tmp_path / "report.md").write_text("old")
    (tmp_path / "report.md").chmod(0o644)
    write_report(report_of("faulty"), tmp_path)
    assert "digits-cnn" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "report.md").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_cannot_be_made_is_one_sentence(report_of, tmp_path, drawn):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="the report cannot be written to"):
        write_report(report_of("faulty"), tmp_path / "file")


def test_a_full_disk_leaves_no_half_file(report_of, tmp_path, drawn, monkeypatch):
    (tmp_path / "report.html").write_text("old")

    monkeypatch.setattr(write.os, "fdopen", lambda *a: _Full(a[0]))
    with pytest.raises(UsageError, match="No space left on device"):
        write_report(report_of("faulty"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "old"


class _Full:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        os.close(self._descriptor)

    def write(self, data: bytes) -> None:
        raise OSError(28, "No space left on device")


def test_making_a_report_never_imports_torch(report_of, tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from torchwatch.report.report import build_report\n"
        "from torchwatch.report.write import write_report\n"
        f"write_report(build_report({str(report_of('faulty').path)!r}), Path({str(tmp_path)!r}))\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot would choose a backend'\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").exists()
