"""Appending to a run file while disk, file, folder and descriptors misbehave.

Longer than other files: a flat list of cases.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torchwatch.errors import RunBusy, UsageError
from torchwatch.records import End, Layout, Note, Record, RunHeader, Step, encode
from torchwatch.runfile import RunWriter, read_records, unused_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADER = RunHeader(run_id="r1")


def steps(first: int, count: int = 1) -> list[Record]:
    return [Step(step=i, loss=0.5) for i in range(first, first + count)]


def step_numbers(path: Path) -> list[int]:
    return [r.step for r in read_records(path) if isinstance(r, Step)]


class Disk:
    """Stands in for os.write: takes ``room`` bytes in pieces of ``piece``, then fails with ``error``."""

    def __init__(self, room: int = 1 << 40, piece: int = 1 << 40, error: int = errno.ENOSPC) -> None:
        self.room, self.piece, self.error, self.calls = room, piece, error, 0
        self._write = os.write

    def write(self, fd: int, data: bytes) -> int:
        self.calls += 1
        if self.room <= 0:
            raise OSError(self.error, os.strerror(self.error))
        done = self._write(fd, bytes(data[: min(self.piece, self.room)]))
        self.room -= done
        return done


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(os, "write", disk.write)
    return disk


@pytest.fixture
def open_writer(tmp_path: Path) -> Iterator[Callable[..., RunWriter]]:
    opened: list[RunWriter] = []

    def open_writer(path: str | Path = tmp_path / "run.jsonl", *, header: bool = True) -> RunWriter:
        writer = RunWriter(path)
        opened.append(writer)
        if header:
            writer.write([HEADER])
        return writer

    yield open_writer
    for writer in opened:
        writer.close()


Open = "Callable[..., RunWriter]"


def test_a_batch_is_one_write_of_whole_lines(open_writer: Open, disk: Disk) -> None:
    writer = open_writer()
    before = disk.calls
    writer.write(steps(1, 5))
    assert disk.calls == before + 1
    assert writer.path.read_bytes() == b"".join(map(encode, [HEADER, *steps(1, 5)]))
    assert (writer.lost_lines, writer.problem, writer.failed, writer.complete) == (0, None, False, True)
    writer.write([])
    assert disk.calls == before + 1


def test_files_and_new_folders_are_private(open_writer: Open, tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        writer = open_writer(tmp_path / "a" / "b" / "run.jsonl")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(writer.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700


def test_the_descriptor_appends_and_is_not_inherited(open_writer: Open) -> None:
    (fd,) = _descriptors(open_writer().path)
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
    assert not os.get_inheritable(fd)


def test_a_taken_path_is_left_alone(open_writer: Open, tmp_path: Path) -> None:
    taken = tmp_path / "digits.jsonl"
    taken.write_text("mine")
    first, second = open_writer(taken), open_writer(taken)
    assert (first.path.name, second.path.name) == ("digits-2.jsonl", "digits-3.jsonl")
    assert taken.read_text() == "mine"
    assert unused_path(taken).name == "digits-4.jsonl"
    assert unused_path(tmp_path / "other") == tmp_path / "other"


def test_a_dangling_link_is_taken(open_writer: Open, tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").symlink_to(tmp_path / "nowhere")
    assert open_writer().path.name == "run-2.jsonl"


def test_somebody_quicker_gets_the_path(
    open_writer: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, real = tmp_path / "run.jsonl", os.path.lexists
    answers = iter([False])

    def lexists(path: Path) -> bool:
        if next(answers, None) is False:
            target.write_text("somebody's")
            return False
        return real(path)

    monkeypatch.setattr(os.path, "lexists", lexists)
    assert open_writer(target).path.name == "run-2.jsonl"
    assert target.read_text() == "somebody's"


def test_two_live_writers_on_one_file(open_writer: Open, tmp_path: Path) -> None:
    writer = open_writer()
    with pytest.raises(RunBusy, match=r"run\.jsonl is being written by another live watcher"):
        open_writer()
    code = f"from torchwatch.runfile import RunWriter; RunWriter({str(writer.path)!r})"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RunBusy" in there.stderr
    writer.close()
    assert open_writer().path.name == "run-2.jsonl"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run-2.jsonl", "run.jsonl"]


@pytest.mark.parametrize("name", ["folder", "pipe", "a\0b", "\ud800", ""])
def test_unusable_paths_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    with pytest.raises(UsageError, match=r"^[^\n]* is (a directory|not a path|not a regular file): [^\n]+$"):
        RunWriter(name)


def test_the_path_holds_when_the_host_changes_its_directory(
    open_writer: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    writer = open_writer("run.jsonl")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "run.jsonl").unlink()
    writer.write(steps(1))
    assert step_numbers(tmp_path / "run.jsonl") == [1]
    assert writer.path == Path("run.jsonl")


def test_a_host_whose_directory_is_gone(
    open_writer: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    writer = open_writer("run.jsonl")
    assert writer.lost_lines == 1
    assert "cannot be made" in (writer.problem or "")
    assert open_writer(tmp_path / "run.jsonl").complete


def test_partial_writes_are_continued(open_writer: Open, disk: Disk) -> None:
    disk.piece = 7
    writer = open_writer()
    writer.write(steps(1, 3))
    assert step_numbers(writer.path) == [1, 2, 3]
    assert writer.complete


def test_a_disk_that_fills_and_empties_again(open_writer: Open, disk: Disk) -> None:
    writer = open_writer()
    disk.room = len(encode(steps(1)[0])) * 2 + 10
    writer.write(steps(1, 5))
    assert (writer.lost_lines, writer.failed, writer.complete) == (3, True, False)
    assert writer.problem is not None
    assert "No space left on device" in writer.problem
    assert "training goes on" in writer.problem
    writer.write(steps(6))
    assert writer.lost_lines == 4
    disk.room = 1 << 30
    writer.write(steps(7, 2))
    writer.write([End()])
    reader = read_records(writer.path)
    assert [r.step for r in reader if isinstance(r, Step)] == [1, 2, 7, 8]
    assert reader.torn_lines == 1
    assert not writer.failed
    assert reader.end == End(complete=False, lost_lines=4)


@pytest.mark.parametrize("error", [errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG, errno.ESTALE])
def test_other_write_errors_are_survived_as_well(open_writer: Open, disk: Disk, error: int) -> None:
    writer = open_writer()
    disk.room, disk.error = 0, error
    writer.write(steps(1, 2))
    disk.room = 1 << 30
    writer.write(steps(3))
    assert step_numbers(writer.path) == [3]
    assert writer.lost_lines == 2
    assert os.strerror(error) in (writer.problem or "")


def test_a_device_that_takes_nothing_is_an_error(open_writer: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer()
    monkeypatch.setattr(os, "write", lambda fd, data: 0)
    writer.write(steps(1))
    assert writer.lost_lines == 1


def test_a_header_that_did_not_fit_comes_first_later(open_writer: Open, disk: Disk) -> None:
    writer = open_writer(header=False)
    disk.room = 20
    writer.write([HEADER, Layout(step=1), *steps(1)])
    assert writer.path.read_bytes() == b""
    disk.room = 1 << 30
    writer.write(steps(2))
    assert list(read_records(writer.path)) == [HEADER, Layout(step=1), *steps(2)]
    assert writer.lost_lines == 3


def test_a_layout_that_did_not_fit_comes_before_the_next_line(open_writer: Open, disk: Disk) -> None:
    writer = open_writer()
    writer.write([Layout(step=1), *steps(1)])
    disk.room = 0
    writer.write([Layout(step=2), *steps(2)])
    disk.room = 1 << 30
    writer.write(steps(3))
    writer.write(steps(4))
    assert list(read_records(writer.path)) == [
        HEADER,
        Layout(step=1),
        *steps(1),
        Layout(step=2),
        *steps(3, 2),
    ]


@settings(deadline=None, max_examples=60)
@given(rooms=st.lists(st.integers(0, 200), max_size=12), piece=st.integers(1, 300))
def test_whatever_the_disk_does_what_was_not_lost_is_there(
    tmp_path_factory: pytest.TempPathFactory, rooms: list[int], piece: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(piece=piece)
        patch.setattr(os, "write", disk.write)
        writer = RunWriter(tmp_path_factory.mktemp("disk") / "run.jsonl")
        written: list[Record] = [HEADER, Layout(step=1)]
        for i, room in enumerate(rooms):
            disk.room = room
            written += steps(3 * i, 3)
            writer.write(written[-3:] if i else written)
        disk.room = 1 << 30
        last = Note(message="last")
        writer.write([*written, last] if not rooms else [last])
        writer.close()
    found = list(read_records(writer.path))
    assert found[:2] == [HEADER, Layout(step=1)]
    assert found[-1] == last
    numbers = [r.step for r in found if isinstance(r, Step)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + writer.lost_lines >= 3 * len(rooms)
    assert writer.complete == (len(numbers) == 3 * len(rooms) and not writer.problem)


def test_a_real_limit_of_the_file_size(tmp_path: Path) -> None:
    script = """
import resource, sys
from torchwatch.records import *
from torchwatch.runfile import RunWriter
writer = RunWriter(sys.argv[1])
writer.write([RunHeader(run_id="r1")])
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
for i in range(100):
    writer.write([Step(step=i)])
full = writer.lost_lines
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write([Step(step=100), End()])
print(full, writer.problem)
"""
    path = tmp_path / "run.jsonl"
    out = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    lost, _, problem = out.stdout.partition(" ")
    assert "File too large" in problem
    reader = read_records(path)
    numbers = [r.step for r in reader if isinstance(r, Step)]
    kept = 100 - int(lost)
    assert 0 < kept < 100
    assert numbers == [*range(kept), 100]
    assert reader.end is not None
    assert reader.end.lost_lines == int(lost)


def test_a_deleted_file_is_made_again(open_writer: Open) -> None:
    writer = open_writer()
    writer.write([Layout(step=1), *steps(1, 3)])
    writer.path.unlink()
    writer.write(steps(4))
    assert list(read_records(writer.path)) == [HEADER, Layout(step=1), *steps(4)]
    assert writer.lost_lines == 5
    assert "was deleted by another program: the recording goes on in a new file" in (writer.problem or "")
    writer.write([End()])
    assert list(read_records(writer.path))[-1] == End(complete=False, lost_lines=5)
    assert not writer.failed


def test_a_deleted_folder_is_made_again(open_writer: Open, tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "runs" / "run.jsonl")
    writer.path.unlink()
    writer.path.parent.rmdir()
    writer.write(steps(1))
    assert step_numbers(tmp_path / "runs" / "run.jsonl") == [1]


def test_a_deleted_file_whose_path_is_taken_moves_aside(open_writer: Open, tmp_path: Path) -> None:
    writer = open_writer()
    writer.path.unlink()
    (tmp_path / "run.jsonl").write_text("somebody's")
    writer.write(steps(1))
    assert writer.path.name == "run-2.jsonl"
    assert step_numbers(writer.path) == [1]
    assert "run-2.jsonl" in (writer.problem or "")
    assert (tmp_path / "run.jsonl").read_text() == "somebody's"


def test_a_moved_file_is_still_the_run(open_writer: Open, tmp_path: Path) -> None:
    writer = open_writer()
    writer.path.rename(tmp_path / "moved.jsonl")
    writer.write(steps(1))
    assert step_numbers(tmp_path / "moved.jsonl") == [1]
    assert writer.complete


@pytest.mark.parametrize("left", [0, 30])
def test_a_truncated_file_gets_its_header_again(open_writer: Open, left: int) -> None:
    writer = open_writer()
    writer.write([*steps(1, 3), Layout(step=1)])
    kept = len(encode(HEADER)) + left if left else 0
    os.truncate(writer.path, kept)
    writer.write(steps(4))
    writer.write(steps(5))
    reader = read_records(writer.path)
    assert list(reader) == [HEADER, Layout(step=1), *steps(4, 2)]
    assert reader.torn_lines == (1 if left else 0)
    written = writer.path.read_bytes().splitlines(keepends=True)
    assert written.count(encode(HEADER)) == (2 if left else 1)
    assert writer.lost_lines == 5
    assert "was truncated" in (writer.problem or "")


def test_a_descriptor_closed_by_the_host_is_opened_again(open_writer: Open) -> None:
    writer = open_writer()
    (fd,) = _descriptors(writer.path)
    os.close(fd)
    writer.write(steps(1))
    assert step_numbers(writer.path) == [1]
    assert writer.complete
    with pytest.raises(RunBusy):
        RunWriter(writer.path)


def test_a_descriptor_that_became_another_file_is_never_written_to(open_writer: Open, tmp_path: Path) -> None:
    writer = open_writer()
    (fd,) = _descriptors(writer.path)
    with (tmp_path / "host").open("wb") as host:
        os.dup2(host.fileno(), fd)
        writer.write(steps(1))
        (again,) = _descriptors(writer.path)
        os.dup2(host.fileno(), again)
        writer.close()
        for theirs in (fd, again):
            os.fstat(theirs)  # still open: it is not ours to close
            os.close(theirs)
    assert (tmp_path / "host").read_bytes() == b""
    assert step_numbers(writer.path) == [1]


def test_a_descriptor_lost_together_with_the_file(open_writer: Open, tmp_path: Path) -> None:
    writer = open_writer()
    writer.write(steps(1))
    (fd,) = _descriptors(writer.path)
    os.close(fd)
    writer.path.unlink()
    writer.write(steps(2))
    assert step_numbers(writer.path) == [2]
    writer.path.rename(tmp_path / "gone")
    os.close(_descriptors(tmp_path / "gone")[0])
    (tmp_path / "run.jsonl").write_text("somebody's")
    writer.write(steps(3))
    assert writer.path.name == "run-2.jsonl"
    assert (tmp_path / "run.jsonl").read_text() == "somebody's"


def test_a_path_that_cannot_be_made_loses_lines_but_never_raises(open_writer: Open, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = open_writer(tmp_path / "file" / "run.jsonl")
    writer.write(steps(1, 2))
    assert (writer.lost_lines, writer.failed, writer.complete) == (3, True, False)
    assert "cannot be made (Not a directory); training goes on" in (writer.problem or "")
    (tmp_path / "file").unlink()
    writer.write(steps(3))
    assert list(read_records(writer.path)) == [HEADER, *steps(3)]
    writer.close()


def test_a_read_only_file_system_loses_lines_but_never_raises(
    open_writer: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str | Path, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        writer = open_writer()
        writer.write(steps(1))
    assert writer.lost_lines == 2
    assert "Read-only file system" in (writer.problem or "")
    writer.write(steps(2))
    assert list(read_records(tmp_path / "run.jsonl")) == [HEADER, *steps(2)]


def test_a_file_system_without_locks_works_unlocked(
    open_writer: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    writer = open_writer()
    writer.write(steps(1))
    assert open_writer().path.name == "run-2.jsonl"
    assert writer.complete


def test_after_close_nothing_is_written(open_writer: Open) -> None:
    writer = open_writer()
    writer.close()
    writer.close()
    writer.write(steps(1))
    assert list(read_records(writer.path)) == [HEADER]
    assert _descriptors(writer.path) == []


def test_an_error_at_close_is_told(open_writer: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = open_writer()
    (fd,) = _descriptors(writer.path)

    def fail(fd: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        writer.close()
    os.close(fd)
    assert writer.failed
    assert "may have lost its last lines" in (writer.problem or "")


def test_a_forked_child_writes_nothing_and_keeps_no_lock(tmp_path: Path) -> None:
    script = """
import os, sys, time
from torchwatch.records import *
from torchwatch.runfile import RunWriter
writer = RunWriter(sys.argv[1])
writer.write([RunHeader(run_id="r1"), Step(step=1)])
reads, writes = os.pipe()
child = os.fork()
if not child:
    writer.write([Step(step=666)])
    writer.close()
    os.read(reads, 1)  # lives on, holding the inherited descriptor
    os._exit(0)
writer.write([Step(step=2)])
try:
    RunWriter(sys.argv[1])
except Exception as error:
    print(type(error).__name__)
writer.close()
print(RunWriter(sys.argv[1]).path)
os.write(writes, b"x")
os.waitpid(child, 0)
"""
    path = tmp_path / "run.jsonl"
    out = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["RunBusy", str(tmp_path / "run-2.jsonl")]
    assert step_numbers(path) == [1, 2]


@pytest.mark.parametrize("acknowledged", [1, 7, 40])
def test_killed_at_any_moment_every_acknowledged_line_reads_back(tmp_path: Path, acknowledged: int) -> None:
    script = """
import sys
from torchwatch.records import *
from torchwatch.runfile import RunWriter
writer = RunWriter(sys.argv[1])
writer.write([RunHeader(run_id="r1")])
for i in range(10**9):
    writer.write([Step(step=i, metrics={"x" * (i % 4000): 0.5})])
    print(i, flush=True)
"""
    path = tmp_path / "run.jsonl"
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(acknowledged):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        shown = [int(line) for line in child.stdout if line.endswith("\n")]
    reader = read_records(path)
    numbers = [r.step for r in reader if isinstance(r, Step)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > max(shown, default=acknowledged - 1)
    assert reader.torn_lines <= 1
    assert reader.end is None


def _descriptors(path: Path) -> list[int]:
    """This process's descriptors of the file."""
    there = path.stat()
    found = []
    for fd in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0] if sys.platform != "linux" else 256):
        try:
            if os.path.samestat(os.fstat(fd), there):
                found.append(fd)
        except OSError:
            continue
    return found
