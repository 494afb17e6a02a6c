"""The state of a run for Prometheus: an HTTP endpoint. Needs the package ``prometheus_client``."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from torchwatch.errors import ConfigError
from torchwatch.records import Alert, End, Epoch, Eval, Interval, RunHeader, Step, Steps, System
from torchwatch.sinks._extra import package
from torchwatch.sinks.scalars import Issues, clean, latest

if TYPE_CHECKING:
    from torchwatch.records import Record

HOST, PORT = "127.0.0.1", 9101
MOST_METRICS = 100
"""So many names of logged metrics at most: each is a time series in Prometheus."""

_LONGEST = 200
_RUN = ("run", "rank")
_GAUGES = {
    "step": "Number of the last training step",
    "epoch": "Number of the epoch, from 0",
    "loss": "Latest training loss",
    "learning_rate": "Latest learning rate of the first parameter group",
    "gradient_norm": "Global L2 norm of the gradients as the optimizer saw them",
    "update_ratio": "Size of the last update over the size of the weights",
    "step_seconds": "Duration of the last step",
    "steps_per_second": "Throughput of the last interval",
    "samples_per_second": "Throughput of the last interval",
    "wait_ratio": "Share of the last interval spent waiting for data",
    "watch_ratio": "Share of the last interval that watching cost",
    "seconds_since_step": "Time since the last step ended",
    "resident_memory_bytes": "Resident memory of the training process",
    "cuda_allocated_bytes": "Device memory that PyTorch has allocated",
    "cpu_percent": "Processor use of the training process",
    "health_score": "Health score so far, 0 to 100",
    "finished": "1 once the run has ended",
}
_OF_STEP = {
    "loss": "loss",
    "lr": "learning_rate",
    "lr/0": "learning_rate",
    "grad_norm": "gradient_norm",
    "update_ratio": "update_ratio",
    "step_time_s": "step_seconds",
}
_OF_INTERVAL = {
    "steps_per_s": "steps_per_second",
    "samples_per_s": "samples_per_second",
    "wait_share": "wait_ratio",
    "watch_share": "watch_ratio",
}
_OF_SYSTEM = {
    "since_step_s": "seconds_since_step",
    "rss_bytes": "resident_memory_bytes",
    "cuda_allocated_bytes": "cuda_allocated_bytes",
    "cpu_percent": "cpu_percent",
}


class PrometheusSink:
    """Serves gauges ``torchwatch_*`` at ``http://127.0.0.1:9101/metrics`` while the run lasts.

    What was not measured yet has no sample. All carry the labels ``run`` and ``rank``. Processes of one
    machine, told apart by ``LOCAL_RANK``, count up from the port.

    Args:
        port: TCP port; 0 takes a free one, and the run file says which.
        host: address to listen at. Anything but loopback shows the run to whoever can reach it.

    Raises:
        MissingExtra: the package is not installed.
        ConfigError: no such port.
    """

    name = "prometheus"

    def __init__(self, port: int = PORT, host: str = HOST) -> None:
        self._client = package("prometheus_client", self.name)
        if type(port) is not int or not 0 <= port <= 65_535:
            raise ConfigError(f"a port is a whole number from 0 to 65535, not {port!r}")
        self._wanted, self._host = port, host
        self._server: Any = None
        self._thread: Any = None
        self._labels = ("", "0")
        self._sentences: list[str] = []
        self._issues = Issues()
        self._metrics: set[str] = set()
        self._full = False
        self._make()

    @property
    def port(self) -> int | None:
        """Where it listens, None before the run begins."""
        return None if self._server is None else int(self._server.server_port)

    def write(self, record: Record) -> None:
        """Set the gauges that this record tells of; the header opens the port.

        Raises:
            OSError: the port is taken.
        """
        if isinstance(record, RunHeader):
            self._open(record)
        elif isinstance(record, (Step, Steps)):
            self._take_step(record)
        elif isinstance(record, Interval):
            self._set_fields(record, _OF_INTERVAL)
        elif isinstance(record, System):
            self._set_fields(record, _OF_SYSTEM)
        elif isinstance(record, (Eval, Epoch)):
            self._set("epoch", record.epoch)
            self._set_metrics(dict(record.metrics))
        elif isinstance(record, Alert):
            self._take_alert(record)
        elif isinstance(record, End):
            self._set("finished", 1)

    def close(self) -> None:
        """Stop listening."""
        server, self._server = self._server, None
        if server is not None:
            stopping = threading.Thread(target=server.shutdown, daemon=True)
            stopping.start()
            while stopping.is_alive():  # the server looks up every half a second, or when someone calls
                with contextlib.suppress(OSError), socket.create_connection(server.server_address[:2], 0.05):
                    pass
                stopping.join(0.05)
            server.server_close()
            self._thread.join(1.0)

    def said(self) -> list[str]:
        """Where the metrics are."""
        sentences, self._sentences = self._sentences, []
        return sentences

    def _make(self) -> None:
        client = self._client
        self.registry = client.CollectorRegistry()
        made = {"labelnames": _RUN, "namespace": "torchwatch", "registry": self.registry}
        self._gauges = {n: client.Gauge(n, text, **made) for n, text in _GAUGES.items()}
        labels = made | {"labelnames": (*_RUN, "name")}
        self._metric = client.Gauge("metric", "Latest value of a logged metric", **labels)
        labels = made | {"labelnames": (*_RUN, "severity")}
        self._open_issues = client.Gauge("open_issues", "Issues that are open", **labels)
        labels = made | {"labelnames": (*_RUN, "check", "severity")}
        self._alerts = client.Counter("alerts", "Issues opened so far", **labels)
        labels = made | {"labelnames": (*_RUN, "id", "model", "torchwatch")}
        self._info = client.Gauge("run_info", "What is watched", **labels)

    def _open(self, header: RunHeader) -> None:
        self._labels = (_label(header.name or header.run_id), str(header.rank))
        told = map(_label, (header.run_id, header.model, header.torchwatch))
        self._info.labels(*self._labels, *told).set(1)
        self._set("finished", 0)
        self._judge()
        port = self._wanted and self._wanted + _local_rank()
        try:
            self._server, self._thread = self._client.start_http_server(port, self._host, self.registry)
        except (OSError, OverflowError) as error:
            raise OSError(f"port {port} of {self._host} cannot be had ({error}); name another one") from error
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._sentences.append(f"prometheus: the metrics are at http://{host}:{self.port}/metrics")

    def _take_step(self, record: Step | Steps) -> None:
        if isinstance(record, Steps) and not record.step:
            return
        numbers = latest(record)
        self._set("step", record.step[-1] if isinstance(record, Steps) else record.step)
        epochs = record.epoch if isinstance(record, Steps) else [record.epoch]
        self._set("epoch", next((e for e in reversed(epochs or ()) if e is not None), None))
        for name, gauge in _OF_STEP.items():
            self._set(gauge, numbers.get(name))
        self._set_metrics(
            {k.removeprefix("metric/"): v for k, v in numbers.items() if k.startswith("metric/")}
        )

    def _take_alert(self, alert: Alert) -> None:
        self._issues.feed(alert)
        if alert.state == "opened":
            self._alerts.labels(*self._labels, _label(alert.check), _label(alert.severity)).inc()
        self._judge()

    def _judge(self) -> None:
        self._set("health_score", self._issues.health_score)
        for severity, number in self._issues.open.items():
            self._open_issues.labels(*self._labels, severity).set(number)

    def _set(self, gauge: str, value: Any) -> None:
        if isinstance(value, (int, float)):
            self._gauges[gauge].labels(*self._labels).set(value)

    def _set_fields(self, record: Record, gauges: dict[str, str]) -> None:
        for field, gauge in gauges.items():
            self._set(gauge, getattr(record, field))

    def _set_metrics(self, metrics: dict[str, Any]) -> None:
        for name, value in metrics.items():
            if name not in self._metrics and len(self._metrics) >= MOST_METRICS:
                if not self._full:
                    self._full = True
                    self._sentences.append(f"prometheus: of the logged metrics only {MOST_METRICS} are shown")
                continue
            self._metrics.add(name)
            if isinstance(value, (int, float)):
                self._metric.labels(*self._labels, _label(name)).set(value)


def _label(text: str) -> str:
    """The text as a label; the library escapes it."""
    return clean(text[:_LONGEST])


def _local_rank() -> int:
    word = os.environ.get("LOCAL_RANK", "0")
    return int(word) if word.isdecimal() else 0
