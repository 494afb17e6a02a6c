"""The endpoint, scraped over HTTP and read by Prometheus' own parser."""

from __future__ import annotations

import socket
import sys
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers_runs import HOSTILE, alert, header, hostile_run, interval, steps, whole_run
from torchwatch.errors import ConfigError, MissingExtra
from torchwatch.records import End, Step, batch
from torchwatch.sinks.prometheus import MOST_METRICS, PrometheusSink

RUN = {"run": "digits", "rank": "0"}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def scraped(records, sink: PrometheusSink | None = None) -> dict[tuple[str, frozenset], float]:
    sink = sink or PrometheusSink(0)
    try:
        for record in records:
            sink.write(record)
        with urllib.request.urlopen(f"http://127.0.0.1:{sink.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    finally:
        sink.close()
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def key(name: str, /, **labels: str) -> tuple[str, frozenset]:
    return f"torchwatch_{name}", frozenset((RUN | labels).items())


def test_a_run_is_scraped() -> None:
    found = scraped(whole_run())
    expected = {
        key("step"): 100,
        key("epoch"): 0,
        key("loss"): 0.12,
        key("health_score"): 93,
        key("resident_memory_bytes"): 512_000_000,
        key("cuda_allocated_bytes"): 2_000_000_000,
        key("metric", name="val_accuracy"): 0.9,
        key("open_issues", severity="warning"): 1,
        key("open_issues", severity="critical"): 0,
        key("alerts_total", check="dead-units", severity="warning"): 1,
        key("run_info", id="r1", model="SmallNet", torchwatch="0.1.0"): 1,
        key("finished"): 1,
    }
    assert {k: found.get(k) for k in expected} == expected


def test_what_was_not_measured_has_no_sample() -> None:
    found = scraped([header()])
    assert key("finished") in found
    assert not {key(n) for n in ("step", "loss", "gradient_norm", "samples_per_second", "cpu_percent")} & set(
        found
    )


def test_steps_in_one_line_show_the_latest() -> None:
    many = [
        Step(step=i, time_s=i / 100, epoch=2, loss=i / 2, lr=[0.1, 9.0], grad_norm=3.0) for i in range(1, 9)
    ]
    found = scraped([header(), batch(many)])
    values = [found[key(n)] for n in ("step", "epoch", "loss", "learning_rate", "gradient_norm")]
    assert values == [8, 2, 4.0, 0.1, 3.0]


def test_an_issue_that_is_over_is_not_open() -> None:
    found = scraped([header(), alert(), alert(state="resolved")])
    assert found[key("open_issues", severity="warning")] == 0
    assert found[key("alerts_total", check="dead-units", severity="warning")] == 1
    assert found[key("health_score")] == 93


@pytest.mark.parametrize("text", [*HOSTILE, 'quote " backslash \\ newline \n end', "\ud800"])
def test_hostile_names_come_back_as_they_were(text: str) -> None:
    found = scraped(hostile_run(text))
    names = {dict(labels).get("run") for _, labels in found}
    assert text[:200].replace("\ud800", "\\ud800") in names


def test_metrics_are_bounded_and_that_is_said_once() -> None:
    sink = PrometheusSink(0)
    logged = [Step(step=i, metrics={f"m{j}": 1.0 for j in range(MOST_METRICS + 50)}) for i in (1, 2)]
    found = scraped([header(), *logged], sink)
    assert sum(name == "torchwatch_metric" for name, _ in found) == MOST_METRICS
    assert sum("only 100 are shown" in sentence for sentence in sink.said()) == 1


def test_it_listens_on_loopback_says_where_and_stops() -> None:
    sink = PrometheusSink(0)
    assert sink.port is None
    assert sink.said() == []
    sink.write(header())
    port = sink.port
    assert sink.said() == [f"prometheus: the metrics are at http://127.0.0.1:{port}/metrics"]
    assert sink.said() == []
    sink.close()
    sink.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1)


def test_a_port_that_is_taken_is_said_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sink = PrometheusSink(port)
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 cannot be had .*; name another one"):
            sink.write(header())
        sink.close()


def test_processes_of_one_machine_count_up_from_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("LOCAL_RANK", "1")
    sink = PrometheusSink(port - 1)
    sink.write(header(rank=1))
    assert sink.port == port
    sink.close()


def test_two_runs_in_one_process_do_not_meet() -> None:
    first, second = PrometheusSink(0), PrometheusSink(0)
    first.write(header(name="one"))
    found = scraped([header(name="two"), *steps(1, 1), interval(1), End()], second)
    first.close()
    assert {dict(labels)["run"] for _, labels in found} == {"two"}


@pytest.mark.parametrize("port", [-1, 65_536, True, "9101", 1.5])
def test_a_port_that_is_none_is_refused(port) -> None:
    with pytest.raises(ConfigError, match="0 to 65535"):
        PrometheusSink(port)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtra, match=r"pip install 'torchwatch-monitor\[prometheus\]'"):
        PrometheusSink()
