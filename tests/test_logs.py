"""What the host says is recorded, and reaches everybody whom it would have reached."""

from __future__ import annotations

import io
import logging
import warnings

import pytest
import torch
from torch import nn

from torchwatch import WatchConfig, Watcher
from torchwatch.logs import MOST, MOST_ALIKE, LogWatch
from torchwatch.records import Log
from torchwatch.runfile import read_records

QUIET = WatchConfig(terminal=False)
logger = logging.getLogger("host.module")


def logs_of(path) -> list[Log]:
    return [r for r in read_records(path) if isinstance(r, Log)]


@pytest.fixture
def heard():
    """What a watch hears, as (level, source, message)."""
    said: list[Log] = []
    watch = LogWatch(said.append, lambda error: pytest.fail(str(error)))
    watch.enter()
    yield said
    watch.leave()


def test_warnings_and_errors_are_heard_and_less_is_not(heard) -> None:
    logger.debug("no")
    logger.info("no")
    logger.warning("disk at %d %%", 91)
    logger.error("cannot open %s", "x.pt")
    assert [(r.level, r.source, r.message) for r in heard] == [
        ("WARNING", "host.module", "disk at 91 %"),
        ("ERROR", "host.module", "cannot open x.pt"),
    ]


def test_a_shown_warning_is_heard_with_its_place_and_a_filtered_one_is_not() -> None:
    heard: list[Log] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        shown = io.StringIO()
        warnings.showwarning = lambda *args, **_: shown.write(str(args[0])) and None
        watch = LogWatch(heard.append, lambda error: pytest.fail(str(error)))
        watch.enter()  # on top of the host's own way of showing
        warnings.warn("lr is 0", UserWarning, stacklevel=1)
        warnings.simplefilter("ignore")
        warnings.warn("never", UserWarning, stacklevel=1)
        watch.leave()
    assert [r.message for r in heard] == ["UserWarning: lr is 0"]
    assert "test_logs.py:" in heard[0].source
    assert shown.getvalue() == "lr is 0"


def test_arguments_that_could_wait_for_a_device_are_not_printed(heard) -> None:
    logger.warning("loss %s", torch.tensor(1.0))
    assert heard[0].message == "loss %s"


def test_a_chatty_host_is_cut_short(heard) -> None:
    for number in range(3 * MOST_ALIKE):
        logger.warning("step %d", number)
    assert len(heard) == MOST_ALIKE
    for number in range(2 * MOST):
        logger.warning("another %d" % number)  # noqa: G002, UP031
    assert len(heard) == MOST


def test_the_hosts_handlers_and_last_resort_stay_as_they_are(capsys) -> None:
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        watch = LogWatch(lambda _: None, lambda _: None)
        watch.enter()
        assert root.handlers == []
        logging.getLogger("nobody.listens").warning("printed all the same")
        logging.basicConfig(format="mine %(message)s")
        assert len(root.handlers) == 1
        watch.leave()
    finally:
        root.handlers = handlers
    assert "printed all the same" in capsys.readouterr().err


def test_everything_is_put_back_whoever_leaves_first() -> None:
    before = logging.getLogRecordFactory(), warnings.showwarning
    first, second = (LogWatch(lambda _: None, lambda _: None) for _ in range(2))
    first.enter()
    second.enter()
    first.leave()
    assert logging.getLogRecordFactory() is not before[0]
    second.leave()
    assert (logging.getLogRecordFactory(), warnings.showwarning) == before


def test_somebody_elses_factory_on_top_of_ours_stays() -> None:
    before = logging.getLogRecordFactory()
    said: list[Log] = []
    watch = LogWatch(said.append, lambda _: None)
    watch.enter()
    ours = logging.getLogRecordFactory()

    def theirs(*args, **kwargs):
        return ours(*args, **kwargs)

    logging.setLogRecordFactory(theirs)
    try:
        watch.leave()
        assert logging.getLogRecordFactory() is theirs
        logger.warning("after")
        assert not said
    finally:
        logging.setLogRecordFactory(before)


def test_a_run_records_what_was_said_and_how_it_ended(tmp_path) -> None:
    model = nn.Linear(2, 1)

    def body() -> None:
        with Watcher(model, tmp_path / "run.jsonl", config=QUIET):
            logger.error("careful")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with pytest.raises(torch.OutOfMemoryError):
        body()
    assert [(r.level, r.source) for r in logs_of(tmp_path / "run.jsonl")] == [
        ("ERROR", "host.module"),
        ("CRITICAL", "OutOfMemoryError"),
    ]


def test_it_can_be_switched_off(tmp_path) -> None:
    model = nn.Linear(2, 1)
    with Watcher(model, tmp_path / "run.jsonl", config=WatchConfig(terminal=False, logs=False)):
        logger.error("unheard")
    assert not logs_of(tmp_path / "run.jsonl")
