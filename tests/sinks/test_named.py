"""Sinks by name, from the argument and from the environment."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from torchwatch import WatchConfig
from torchwatch.errors import ConfigError
from torchwatch.sinks.logfile import LogFileSink
from torchwatch.sinks.named import chosen, default_sinks
from torchwatch.sinks.prometheus import HOST, PORT, PrometheusSink
from torchwatch.sinks.tensorboard import TensorBoardSink
from torchwatch.sinks.terminal import TerminalSink
from torchwatch.sinks.wandb import WandbSink
from torchwatch.sinks.webhook import WebhookSink

CONFIG = WatchConfig()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHWATCH_SINKS", raising=False)
    monkeypatch.setenv("TORCHWATCH_WEBHOOK_URL", "https://example.org/s3cret")
    monkeypatch.setenv("OTHER_URL", "https://hooks.slack.com/services/s3cret")


def kinds(sinks) -> list[type]:
    return [type(sink) for sink in sinks]


class Own:
    def write(self, record) -> None: ...

    def close(self) -> None: ...


def test_names_and_objects_in_their_order(tmp_path: Path) -> None:
    names = ["webhook", "terminal", f"tensorboard:{tmp_path}", "prometheus", "wandb", "logfile:x.log"]
    own = Own()
    sinks = chosen([*names, own], CONFIG)
    assert kinds(sinks) == [
        WebhookSink, TerminalSink, TensorBoardSink, PrometheusSink, WandbSink, LogFileSink, Own,
    ]  # fmt: skip
    assert sinks[2].folder == tmp_path


def test_exactly_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHWATCH_SINKS", "webhook")
    assert chosen([], CONFIG) == []
    assert kinds(chosen("terminal, webhook:OTHER_URL", CONFIG)) == [TerminalSink, WebhookSink]


def test_without_argument_and_variable_it_is_the_default() -> None:
    assert chosen(None, CONFIG) is None


@pytest.mark.parametrize(
    ("words", "config", "expected"),
    [
        ("webhook", CONFIG, [TerminalSink, WebhookSink]),
        (" webhook , prometheus:9102,", CONFIG, [TerminalSink, WebhookSink, PrometheusSink]),
        ("webhook", WatchConfig(terminal=False), [WebhookSink]),
        ("terminal,webhook", WatchConfig(terminal=False), [TerminalSink, WebhookSink]),
        ("-terminal,webhook", CONFIG, [WebhookSink]),
        ("-terminal", CONFIG, []),
        ("-terminal", WatchConfig(log_file="x.log"), [LogFileSink]),
        ("terminal", CONFIG, [TerminalSink]),
    ],
)
def test_the_variable_adds_to_the_default(monkeypatch, words: str, config, expected: list[type]) -> None:
    monkeypatch.setenv("TORCHWATCH_SINKS", words)
    assert kinds(chosen(None, config)) == expected


@pytest.mark.parametrize("words", ["", " ", ",", " , "])
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setenv("TORCHWATCH_SINKS", words)
    assert chosen(None, CONFIG) is None


def test_default_sinks_follow_the_config() -> None:
    assert kinds(default_sinks(CONFIG)) == [TerminalSink]
    assert kinds(default_sinks(WatchConfig(terminal=False))) == []
    assert kinds(default_sinks(WatchConfig(terminal=False, log_file="x.log"))) == [LogFileSink]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("promethus", "did you mean 'prometheus'"),
        ("tensorbord:runs", "did you mean 'tensorboard'"),
        ("zzz", "known: logfile, prometheus, tensorboard, terminal, wandb, webhook"),
        ("prometheus:http", "takes a port"),
        ("prometheus:99999", "0 to 65535"),
        ("terminal:x", "takes no option"),
        ("logfile", "needs its file"),
        ("webhook:NOT_SET", "environment variable NOT_SET: set it"),
        (3, "not int"),
        (object(), "not object"),
    ],
)
def test_what_is_no_sink_fails_at_once_in_one_sentence(wrong, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chosen([wrong], CONFIG)


def test_a_mistake_in_the_variable_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHWATCH_SINKS", "webhok")
    with pytest.raises(
        ConfigError, match=r"^TORCHWATCH_SINKS: there is no sink called 'webhok'; did you mean"
    ):
        chosen(None, CONFIG)


def test_an_address_typed_for_a_name_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ("webhook:https://example.org/s3cret", "https://example.org/s3cret"):
        with pytest.raises(ConfigError) as caught:
            chosen([words], CONFIG)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "host", "port"),
    [("", HOST, PORT), ("9102", HOST, 9102), ("0.0.0.0:0", "0.0.0.0", 0), ("[::1]:9102", "::1", 9102)],
)
def test_prometheus_takes_a_port_and_a_host(option: str, host: str, port: int) -> None:
    (sink,) = chosen([f"prometheus:{option}"], CONFIG)
    assert (sink._host, sink._wanted) == (host, port)


def test_the_host_s_random_numbers_stay_what_they_are() -> None:
    random.seed(1)
    before = random.getstate()
    chosen(["terminal", "logfile:x.log", "tensorboard", "wandb", "prometheus", "webhook"], CONFIG)
    assert random.getstate() == before
