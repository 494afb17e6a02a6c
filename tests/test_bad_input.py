"""What cannot be used is refused with one clear sentence; no traceback from the inside, no file lost.

Longer than other files: a flat list of cases.
"""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import torchwatch
from tests.helpers_cli import call
from tests.helpers_runs import faulty_run, header, steps, whole_run, write_run
from torchwatch.errors import (
    ConfigError,
    ModelError,
    NewerSchema,
    NotARunFile,
    RunBusy,
    RunFileError,
    TorchwatchError,
    UsageError,
    WatcherClosed,
)
from torchwatch.records import encode

READERS = [["tail"], ["tail", "--no-follow"], ["tail", "--json"], ["status"], ["diagnose"], ["postmortem"]]


def missing(path: Path) -> Path:
    return path


def directory(path: Path) -> Path:
    path.mkdir()
    return path


def binary(path: Path) -> Path:
    path.write_bytes(random.Random(0).randbytes(50_000))
    return path


def empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def blank(path: Path) -> Path:
    path.write_bytes(b"\n\n\n")
    return path


def half_a_header(path: Path) -> Path:
    path.write_bytes(encode(header())[:60])
    return path


def schema_99(path: Path) -> Path:
    body = json.loads(encode(header())) | {"schema": 99}
    path.write_text(json.dumps(body) + "\n")
    return path


def nan_header(path: Path) -> Path:
    path.write_text('{"kind":"run","schema":NaN}\n')
    return path


def nan_schema(path: Path) -> Path:
    path.write_text('{"kind":"run","schema":null,"nonfinite":{"schema":"nan"}}\n')
    return path


def other_json(path: Path) -> Path:
    path.write_text('{"loss": 0.5}\n{"loss": 0.4}\n')
    return path


def headless(path: Path) -> Path:
    return write_run(path, whole_run()[1:])


def long_line(path: Path) -> Path:
    path.write_bytes(b"x" * 10_000_000 + b"\n")
    return path


def long_json(path: Path) -> Path:
    path.write_bytes(b'{"kind":"' + b"x" * 10_000_000 + b'"}\n')
    return path


def deep_json(path: Path) -> Path:
    path.write_bytes(b"[" * 1_000_000 + b"\n")
    return path


def broken_gzip(path: Path) -> Path:
    path.write_bytes(gzip.compress(encode(header()))[:20])
    return path


UNUSABLE = [
    (missing, NotARunFile, "there is no file"),
    (directory, NotARunFile, "is a directory"),
    (binary, NotARunFile, "is not a run file"),
    (empty, NotARunFile, "is empty"),
    (blank, NotARunFile, "is empty"),
    (half_a_header, NotARunFile, "is not a run file"),
    (schema_99, NewerSchema, "schema 99"),
    (nan_header, NotARunFile, "is not a run file"),
    (nan_schema, NotARunFile, "is not a run file"),
    (other_json, NotARunFile, "is not a run file"),
    (headless, NotARunFile, "is not a run file"),
    (long_line, NotARunFile, "is not a run file"),
    (long_json, NotARunFile, "is not a run file"),
    (deep_json, NotARunFile, "is not a run file"),
    (broken_gzip, NotARunFile, "is"),
]


@pytest.mark.parametrize("command", READERS, ids=" ".join)
@pytest.mark.parametrize(("make", "_", "words"), UNUSABLE, ids=lambda v: getattr(v, "__name__", None))
def test_unusable_file_on_the_command_line(
    make: Callable[[Path], Path],
    _: type,
    words: str,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make(tmp_path / "run.jsonl")
    before = path.read_bytes() if path.is_file() else None
    shown = call(monkeypatch, command[0], path, *command[1:])
    assert shown.code == 2
    assert shown.out == ""
    assert shown.err.startswith("torchwatch: ")
    assert shown.err.count("\n") == 1
    assert str(path) in shown.err
    assert words in shown.err
    assert "Traceback" not in shown.err
    assert len(shown.err) < 600
    assert (path.read_bytes() if path.is_file() else None) == before
    assert sorted(p.name for p in tmp_path.iterdir()) in ([], ["run.jsonl"])


@pytest.mark.parametrize("read", [torchwatch.read_run, torchwatch.diagnose], ids=["read_run", "diagnose"])
@pytest.mark.parametrize(("make", "kind", "words"), UNUSABLE, ids=lambda v: getattr(v, "__name__", None))
def test_unusable_file_in_python(
    make: Callable[[Path], Path],
    kind: type[RunFileError],
    words: str,
    read: Callable[[Path], object],
    tmp_path: Path,
) -> None:
    path = make(tmp_path / "run.jsonl")
    with pytest.raises(kind, match=words) as caught:
        read(path)
    assert one_sentence(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_lines_that_cannot_be_read_in_a_good_file_are_passed_over(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [encode(r) for r in whole_run()]
    bad = [
        b"x" * 10_000_000 + b"\n",
        b"\x00\xff\xfe\n",
        b'{"kind":"step","step":"many"}\n',
        b'{"kind":"alert","check":["a"],"severity":7}\n',
        b'{"kind":"eval","metrics":[1]}\n',
        b'{"kind":"interval","loss_mean":NaN}\n',
        b'{"kind":"future","anything":1}\n',
        b"null\n",
    ]
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join([*good[:60], *bad, *good[60:-1], *bad, good[-1]]))
    shown = call(monkeypatch, command[0], path, *command[1:])
    assert shown.code == 0
    assert "Traceback" not in shown.out + shown.err
    assert shown.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["explain", "overfiting"], "there is no check 'overfiting'; did you mean 'overfitting'?"),
        (["explain", ""], "there is no check ''"),
        (
            ["diagnose", "RUN", "--ignore", "dead-unit"],
            "there is no check 'dead-unit'; did you mean 'dead-units'?",
        ),
        (["diagnose", "RUN", "--limit", "overfiting.patience=5"], "there is no check 'overfiting'"),
        (
            ["diagnose", "RUN", "--limit", "overfitting.patients=5"],
            "check 'overfitting' has no limit 'patients'; did you mean 'patience'?",
        ),
        (["diagnose", "RUN", "--limit", "overfitting.patience=many"], "--limit needs CHECK.LIMIT=NUMBER"),
        (["diagnose", "RUN", "--limit", "overfitting"], "--limit needs CHECK.LIMIT=NUMBER"),
        (["checks", "--category", "lost"], "'lost' is not one of"),
        (["status"], "missing argument 'RUN'"),
    ],
)
def test_wrong_words_on_the_command_line(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run.jsonl", faulty_run())
    shown = call(monkeypatch, *(str(run) if a == "RUN" else a for a in arguments))
    assert shown.code == 2
    assert shown.out == ""
    assert sentence in shown.err
    assert shown.err.count("\n") == 1


def one_sentence(error: BaseException) -> bool:
    """One line that does not end in the middle, short enough to be read."""
    text = str(error)
    return "\n" not in text and 10 < len(text) < 500


@pytest.fixture
def model() -> torch.nn.Module:
    return torch.nn.Linear(3, 2)


@pytest.mark.parametrize(
    "wrong",
    [None, "model", 5, [torch.nn.Linear(1, 1)], torch.nn.Linear, np.zeros(3), torch.zeros(3), lambda x: x],
    ids=lambda v: type(v).__name__,
)
def test_what_is_no_module_is_not_watched(wrong: object, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a Watcher watches a torch\.nn\.Module, not ") as caught:
        torchwatch.Watcher(wrong, tmp_path / "run.jsonl")
    assert isinstance(caught.value, (TypeError, ValueError))
    assert one_sentence(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ignore": ["overfiting"]}, "there is no check 'overfiting'; did you mean 'overfitting'?"),
        ({"ignore": "overfiting"}, "there is no check 'overfiting'"),
        ({"limits": {"overfiting": {"patience": 5}}}, "there is no check 'overfiting'"),
        ({"limits": {"overfitting": {"patients": 5}}}, "has no limit 'patients'; did you mean 'patience'?"),
        ({"limits": {"overfitting": {"patience": "5"}}}, "must be a number, not '5'"),
        ({"limits": {"overfitting": {"patience": True}}}, "must be a number, not True"),
        ({"stop_on": "warning"}, "stop_on must be"),
        ({"stop_on": 0}, "stop_on must be"),
    ],
    ids=str,
)
def test_unknown_options_fail_before_anything_is_written(
    options: dict[str, object], words: str, model: torch.nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        torchwatch.Watcher(model, tmp_path / "run.jsonl", **options)
    assert words in str(caught.value)
    assert one_sentence(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"activations_every": 0}, "activations_every must be a whole number of at least 1, or None, not 0"),
        ({"interval_steps": 2.5}, "interval_steps must be"),
        ({"flush_s": 5}, "flush_s must be between 0 and 1 second, not 5"),
        ({"flush_s": None}, "flush_s must be"),
        ({"declare": {"planned_step": 5}}, "did you mean 'planned_steps'?"),
    ],
    ids=str,
)
def test_config_out_of_range(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        torchwatch.WatchConfig(**options)
    assert words in str(caught.value)
    assert one_sentence(caught.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda w: w.log(loss=1.0),
        lambda w: w.step(),
        lambda w: w.epoch(val_loss=1.0),
        lambda w: w.batches([]),
        lambda w: w.__enter__(),
    ],
    ids=["log", "step", "epoch", "batches", "with"],
)
def test_closed_watcher(
    use: Callable[[torchwatch.Watcher], object], model: torch.nn.Module, tmp_path: Path
) -> None:
    with torchwatch.Watcher(model, tmp_path / "run.jsonl", sinks=[]) as watch:
        watch.log(loss=1.0)
        watch.step()
    written = watch.path.read_bytes()
    with pytest.raises(WatcherClosed, match="this watcher is closed") as caught:
        use(watch)
    assert one_sentence(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert watch.path.read_bytes() == written


def test_watcher_that_is_not_open_yet(model: torch.nn.Module, tmp_path: Path) -> None:
    watch = torchwatch.Watcher(model, tmp_path / "run.jsonl", sinks=[])
    with pytest.raises(WatcherClosed, match="not open yet") as caught:
        watch.log(loss=1.0)
    assert one_sentence(caught.value)


def test_two_watchers_on_one_file(model: torch.nn.Module, tmp_path: Path) -> None:
    path, other = tmp_path / "run.jsonl", torch.nn.Linear(1, 1)
    with torchwatch.Watcher(model, path, sinks=[]) as first:
        first.log(loss=1.0)
        with (
            pytest.raises(RunBusy, match="is being written by another live watcher") as caught,
            torchwatch.Watcher(other, path, sinks=[]),
        ):
            raise AssertionError("the second watcher was let in")
        first.step()
    assert one_sentence(caught.value)
    assert str(path) in str(caught.value)
    assert torchwatch.read_run(path).end is not None
    assert [p.name for p in tmp_path.iterdir()] == ["run.jsonl"]


def test_file_of_an_earlier_run_is_never_written_over(
    model: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("thesis\n")
    with torchwatch.Watcher(model, path) as watch:
        watch.log(loss=1.0)
        watch.step()
    assert path.read_text() == "thesis\n"
    assert watch.path == tmp_path / "run-2.jsonl"
    assert capsys.readouterr().err.count("run-2.jsonl") == 1


@pytest.mark.parametrize("path", ["", "bad\0name", "."])
def test_path_that_is_no_file(path: str, model: torch.nn.Module, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught, torchwatch.Watcher(model, path, sinks=[]):
        raise AssertionError("the watcher began")
    assert one_sentence(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_every_error_of_ours_is_documented_and_caught_by_its_base() -> None:
    import torchwatch.errors as errors

    ours = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert all(issubclass(e, TorchwatchError) for e in ours)
    assert all(e.__name__ in (errors.__doc__ or "") for e in ours)


def test_diagnosis_of_records_without_a_header() -> None:
    with pytest.raises(NotARunFile, match="not the header of a run") as caught:
        torchwatch.diagnose(iter(steps(1, 3)))
    assert one_sentence(caught.value)
