from __future__ import annotations

import orjson
import pytest

from tests.helpers_report import Plan, run, write
from torchwatch.__main__ import main
from torchwatch.commands import postmortem


@pytest.fixture(autouse=True)
def one_plot(monkeypatch):
    """What the command does does not depend on how many plots are drawn."""
    monkeypatch.setattr("torchwatch.report.plots.NAMES", ("memory",))


def test_writes_beside_the_run_and_prints_the_paths(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", run(Plan(epochs=1)))
    assert main(["postmortem", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [str(tmp_path / "a" / n) for n in ("report.html", "report.md", "report.json", "memory.png")]
    assert all((tmp_path / "a" / n).exists() for n in ("report.html", "memory.png"))


def test_out_names_the_directory_and_gzip_is_read(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl.gz", run(Plan(epochs=1)))
    assert main(["postmortem", str(path), "--out", str(tmp_path / "there")]) == 0
    assert (tmp_path / "there" / "report.md").exists()
    assert str(tmp_path / "there" / "report.md") in capsys.readouterr().out


def test_json_on_stdout_is_the_file_and_nothing_else(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", run(Plan(nan_from=20, epochs=1)))
    assert main(["postmortem", str(path), "--json"]) == 0
    out = capsys.readouterr().out
    body = orjson.loads(out)
    assert out.encode() == (tmp_path / "a" / "report.json").read_bytes()
    assert body["issues"][0]["check"] == "loss-nonfinite"
    assert body["health_score"] <= 80


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "missing"), (b"", "empty"), (b"PK\x03\x04\x00", "header"), (b'{"a":1}\n', "header")],
)
def test_unusable_input_is_one_sentence_and_code_two(tmp_path, capsys, content: bytes | None, said: str):
    path = tmp_path / f"{said}.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert main(["postmortem", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err
    assert not (tmp_path / said).exists()


def test_an_out_that_is_a_file_is_one_sentence_and_code_two(tmp_path, capsys):
    path = write(tmp_path / "a.jsonl", run(Plan(epochs=1)))
    (tmp_path / "file").write_text("")
    assert main(["postmortem", str(path), "--out", str(tmp_path / "file")]) == 2
    assert "the report cannot be written to" in capsys.readouterr().err


def test_progress_is_silent_for_two_seconds(capsys):
    now = [0.0]
    say = postmortem._said_when_slow(lambda: now[0])
    say("early")
    now[0] = 2.5
    say("drawing loss")
    say("drawing memory")
    now[0] = 4.5
    say("writing")
    assert capsys.readouterr().err == "torchwatch: drawing loss …\ntorchwatch: writing …\n"
