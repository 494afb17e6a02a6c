"""Real trainings with sinks: what arrives, what the end record counts, and that training does not notice."""

from __future__ import annotations

import random
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers_http import serving
from torchwatch import WatchConfig, Watcher
from torchwatch.records import End, Note, Record
from torchwatch.runfile import read_records
from torchwatch.sinks.prometheus import PrometheusSink
from torchwatch.sinks.tensorboard import TensorBoardSink
from torchwatch.sinks.webhook import WebhookSink

CONFIG = WatchConfig(energy=False)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "TORCHWATCH_SINKS", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def train(path: Path, sinks, *, faulty: bool = True, config: WatchConfig = CONFIG, during=None) -> tuple:
    """Weights, final random states and records of a short training; a faulty one ends with a NaN loss."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is what belongs to the host
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watcher(model, path, config=config, sinks=sinks) as watch:
        for i in range(30):
            x = torch.randn(8, 4)
            optimizer.zero_grad()
            loss = model(x).square().mean() * (float("nan") if faulty and i > 25 else 1.0)
            loss.backward()
            optimizer.step()
            watch.log(loss=loss)
        watch.epoch(val_loss=0.5)
        if during is not None:
            during(watch)
    drawn = np.random.get_state()[1].tolist()  # noqa: NPY002 - as above
    states = (torch.random.get_rng_state().tolist(), random.getstate(), drawn)
    weights = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy().tobytes()
    return weights, states, list(read_records(watch.path))


def end_of(records: list[Record]) -> End:
    assert isinstance(records[-1], End)
    return records[-1]


def notes(records: list[Record]) -> str:
    return "\n".join(r.message for r in records if isinstance(r, Note))


def test_a_webhook_tells_of_a_critical_and_the_end_record_counts_it(tmp_path, monkeypatch) -> None:
    with serving(503) as server:
        monkeypatch.setenv("TORCHWATCH_WEBHOOK_URL", server.url)
        _, _, records = train(tmp_path / "run.jsonl", ["webhook"])
    sent = [told.json for told in server.taken]
    assert "loss-nonfinite" in [alert["check"] for body in sent for alert in body["alerts"]]
    assert all(alert["severity"] == "critical" for body in sent for alert in body["alerts"])
    assert end_of(records).sinks == {"webhook": {"delivered": len(sent), "undelivered": 0}}
    assert "webhook: the server answers 503: trying again" in notes(records)
    assert "s3cret" not in (tmp_path / "run.jsonl").read_text()
    assert "127.0.0.1" not in (tmp_path / "run.jsonl").read_text()


@pytest.mark.parametrize("answer", ["never", "cut", 500])
def test_a_webhook_that_takes_nothing_costs_no_step_and_little_at_the_end(
    tmp_path, monkeypatch, answer, capsys
) -> None:
    with serving(*[answer] * 500) as server:
        monkeypatch.setenv("TORCHWATCH_WEBHOOK_URL", server.url)
        config = WatchConfig(energy=False, drain_s=1.0)
        began = time.perf_counter()
        _, _, records = train(tmp_path / "run.jsonl", "terminal,webhook", config=config)
        assert time.perf_counter() - began < 5
    told = end_of(records).sinks["webhook"]
    assert told["delivered"] == 0
    assert told["undelivered"] > 0
    assert end_of(records).complete is True, "the run file itself is whole"
    assert "not delivered" in capsys.readouterr().err


def test_training_is_the_same_to_the_last_bit_with_all_of_them(tmp_path, monkeypatch) -> None:
    with serving() as server:
        monkeypatch.setenv("TORCHWATCH_WEBHOOK_URL", server.url)
        without = train(tmp_path / "a.jsonl", [])
        before = set(threading.enumerate())
        sinks = ["webhook", f"tensorboard:{tmp_path / 'tb'}", "prometheus:0", f"logfile:{tmp_path / 'log'}"]
        with_all = train(tmp_path / "b.jsonl", sinks)
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
        left = {thread.name for thread in set(threading.enumerate()) - before}
    assert with_all[:2] == without[:2]
    assert left == set()


def test_tensorboard_and_prometheus_see_a_training(tmp_path) -> None:
    board, endpoint, seen = TensorBoardSink(tmp_path / "tb"), PrometheusSink(0), {}

    def scrape(watch: Watcher) -> None:
        until = time.monotonic() + 10
        while seen.get("torchwatch_metric") != 0.5 and time.monotonic() < until:
            with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics") as answer:
                text = answer.read().decode()
            families = text_string_to_metric_families(text)
            seen.update((s.name, s.value) for f in families for s in f.samples)

    _, _, records = train(tmp_path / "run.jsonl", [board, endpoint], faulty=False, during=scrape)
    assert (seen["torchwatch_step"], seen["torchwatch_metric"]) == (30, 0.5)
    events = EventAccumulator(str(tmp_path / "tb" / "run")).Reload()
    assert events.Scalars("torchwatch/loss")[-1].step == 30
    assert events.Scalars("torchwatch/metric/val_loss")[-1].value == 0.5
    told = end_of(records).sinks
    assert list(told) == ["tensorboard"]
    assert told["tensorboard"]["undelivered"] == 0
    assert "http://127.0.0.1:" in notes(records)


def test_a_taken_port_and_a_full_disk_switch_their_sink_off_alone(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    first = PrometheusSink(0)

    def second(watch: Watcher) -> None:
        sinks = [PrometheusSink(first.port), TensorBoardSink(tmp_path / "file")]
        _, _, records = train(tmp_path / "b.jsonl", sinks, faulty=False)
        assert "PrometheusSink switched off: OSError: port" in notes(records)
        assert "TensorBoardSink switched off: " in notes(records)
        assert end_of(records).steps == 30

    train(tmp_path / "a.jsonl", [first], faulty=False, during=second)


def test_two_sinks_of_one_kind_are_told_apart(tmp_path, monkeypatch) -> None:
    with serving() as one, serving(*[404] * 50) as two:
        monkeypatch.setenv("ONE", one.url)
        monkeypatch.setenv("TWO", two.url)
        _, _, records = train(tmp_path / "run.jsonl", [WebhookSink("ONE"), WebhookSink("TWO")])
    told = end_of(records).sinks
    assert told["webhook"]["undelivered"] == told["webhook-2"]["delivered"] == 0
    assert told["webhook"]["delivered"] == told["webhook-2"]["undelivered"] > 0


def test_the_variable_reaches_a_training(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("TORCHWATCH_SINKS", f"-terminal,logfile:{tmp_path / 'run.log'}")
    train(tmp_path / "run.jsonl", None)
    assert capsys.readouterr().err == ""
    assert "loss-nonfinite" in (tmp_path / "run.log").read_text()


@pytest.mark.slow
def test_wandb_sees_a_training(tmp_path, monkeypatch) -> None:
    from tests.helpers_wandb import history, offline_runs

    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    config = WatchConfig(energy=False, drain_s=60.0)  # its service takes seconds to start on a busy machine
    _, _, records = train(tmp_path / "run.jsonl", "wandb:project", config=config)
    assert end_of(records).sinks["wandb"]["undelivered"] == 0
    (path,) = offline_runs(tmp_path)
    rows = history(path)
    assert max(r["torchwatch/step"] for r in rows if "torchwatch/step" in r) == 30
    assert any(r.get("torchwatch/issues/_type") == "table-file" for r in rows)
    assert min(r["torchwatch/health_score"] for r in rows if "torchwatch/health_score" in r) <= 80
