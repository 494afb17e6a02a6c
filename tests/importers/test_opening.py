"""The door: what a file is, its content says."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers_cli import call
from tests.helpers_runs import whole_run, write_run
from tests.importers.reading import json_lines, losses, of_kind, opened, trainer_state
from torchwatch import diagnose
from torchwatch.errors import NotARunFile, TorchwatchError
from torchwatch.importers import FORMATS, ImportedReader, open_run
from torchwatch.records import End, Note, RunHeader, encode
from torchwatch.runfile import RecordReader

ROWS = [{"epoch": e, "loss": 2.0 / (e + 1)} for e in range(30)]
CSV = "epoch,loss\n" + "".join(f"{r['epoch']},{r['loss']}\n" for r in ROWS)
EXAMPLES = {
    "Hugging Face trainer_state": trainer_state([{"step": 1, "loss": 1.0, "epoch": 0.5}]),
    "Ultralytics results": "epoch,train/loss,val/loss,lr/pg0\n1,2,3,0.1\n",
    "Lightning metrics": "epoch,step,train_loss\n0,49,1.0\n",
    "Keras history": "epoch,loss\n0,2.0\n",
    "MAE/DeiT log": '{"train_lr": 1e-4, "train_loss": 1.0, "epoch": 0}\n',
    "detectron2 metrics": '{"iteration": 19, "total_loss": 1.0, "data_time": 0.1}\n',
    "nanoGPT log": "0 train 10.9\n",
    "CSV": "Epoch,Train Loss\n1,2.5\n",
    "JSON lines": '{"step": 1, "loss": 2.0}\n',
}


@pytest.mark.parametrize("name", ["log", "results.csv", "trainer_state.json", "metrics.csv", "run.jsonl"])
@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_name_of_the_file_says_nothing(kind: str, name: str, tmp_path: Path) -> None:
    reader, records = opened(tmp_path / name, EXAMPLES[kind])
    assert reader.format == kind
    assert len(losses(records)) == 1


@pytest.mark.parametrize("kind", EXAMPLES)
def test_gzip_and_byte_order_mark(kind: str, tmp_path: Path) -> None:
    plain = EXAMPLES[kind].encode()
    for content in (gzip.compress(plain), b"\xef\xbb\xbf" + plain):
        reader, records = opened(tmp_path / "log", content)
        assert reader.format == kind
        assert len(losses(records)) == 1


def test_a_cut_off_gzip_gives_what_is_whole(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "log", gzip.compress(CSV.encode())[:-12])
    assert len(losses(records)) > 1


def test_windows_text(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "log", CSV.replace("\n", "\r\n").encode("utf-16"))
    assert len(losses(records)) == 30


def test_every_format_is_documented_and_has_a_test() -> None:
    for module in FORMATS:
        name = module.__name__.rpartition(".")[2]
        assert (Path(__file__).parent / f"test_{name}.py").exists()
        assert module.__doc__


def test_a_run_file_is_read_as_one(tmp_path: Path) -> None:
    path = write_run(tmp_path / "looks.csv", whole_run())
    assert isinstance(open_run(path), RecordReader)


def test_a_run_file_without_its_header_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b"".join(encode(r) for r in whole_run()[1:]))
    with pytest.raises(NotARunFile, match="is not a run file"):
        open_run(path)


def test_reader_is_a_reader(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(CSV)
    with open_run(path) as reader:
        assert isinstance(reader, ImportedReader)
        first = next(reader)
        assert first is reader.header
        assert isinstance(first, RunHeader)
        rest = list(reader)
    assert isinstance(rest[0], Note)
    assert rest[-1] is reader.end
    assert of_kind(rest, End)[0].steps == 30
    assert reader.unknown_lines == 0


def test_two_readings_are_the_same(tmp_path: Path) -> None:
    _, first = opened(tmp_path / "x", CSV)
    _, second = opened(tmp_path / "x", CSV)
    assert [encode(r) for r in first] == [encode(r) for r in second]


def test_records_of_a_log_make_a_run_file(tmp_path: Path) -> None:
    _, records = opened(tmp_path / "x", CSV)
    (tmp_path / "run.jsonl").write_bytes(b"".join(encode(r) for r in records))
    said = [diagnose(tmp_path / n).as_json() for n in ("x", "run.jsonl")]
    for one in said:
        for key in ("run", "wall_s", "steps_per_s"):
            one.pop(key)
    assert said[0] == said[1]


def test_a_loss_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("epoch,loss\n1,\n2,\n")
    with pytest.raises(NotARunFile, match=r"surely the loss|no training loss"):
        open_run(path)


@pytest.mark.parametrize("command", ["diagnose", "postmortem"])
@pytest.mark.parametrize(
    "content",
    ["hello, world\n", "<html>\n", "a,b\n1,2\n", "{}\n", '{"a": 1}\n{"a": 2}\n', "\x00\x01,\x02\n", "[1, 2]"],
)
def test_what_is_no_log(content: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    shown = call(monkeypatch, command, path)
    assert (shown.code, shown.out) == (2, "")
    assert "is not a run file" in shown.err
    assert str(path) in shown.err
    assert shown.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_text_from_a_log_cannot_drive_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.csv"
    path.write_text("epoch,loss_\x1b[31m,b\x07\n1,2,3\n")
    shown = call(monkeypatch, "diagnose", path)
    assert shown.code == 2
    assert "\x1b" not in shown.err


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(EXAMPLES)),
    cut=st.integers(0, 200),
    noise=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)),
    times=st.integers(1, 3),
)
def test_whatever_is_in_a_file_it_is_read_or_refused(
    tmp_path: Path, kind: str, cut: int, noise: bytes, times: int
) -> None:
    path = tmp_path / "log"
    content = EXAMPLES[kind].encode()
    path.write_bytes(content * times + content[:cut] + noise + content[cut:])
    try:
        records = list(open_run(path))
    except TorchwatchError:
        return
    for record in records:
        encode(record)
    steps = list(losses(records))
    assert steps == sorted(set(steps))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["step", "epoch", "loss", "val_loss", "lr", "time", "grad_norm"]),
            st.one_of(st.floats(), st.integers(), st.text(max_size=5), st.none(), st.booleans()),
        ),
        max_size=12,
    )
)
def test_whatever_values_json_lines_hold(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    path = tmp_path / "log"
    path.write_text(json.dumps({"step": 0, "loss": 1.0}) + "\n" + json_lines(rows))
    found = diagnose(path)
    assert not [why for why in found.not_run.values() if why.startswith("switched off")]


def test_a_log_is_diagnosed_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(CSV)
    program = (
        "import sys\nfrom torchwatch.__main__ import main\n"
        f"assert main(['diagnose', {str(path)!r}, '--json']) == 0\n"
        "assert not {'torch', 'tensorboard', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
