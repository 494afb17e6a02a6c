"""Processor and memory with codecarbon's parts, which must leave the host alone."""

from __future__ import annotations

import atexit
import logging
import random
import signal
import socket
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from torchwatch.recorder import meters as module
from torchwatch.recorder.meters import WATTS_PER_THREAD, Joules, ProcessMeters, design_power, processor


@pytest.fixture
def meters():
    made = ProcessMeters()
    yield made
    made.close()


def state() -> tuple:
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002 - the host's may be of this kind
        torch.get_rng_state().tolist(),
        list(warnings.filters),
        list(logging.root.handlers),
        logging.root.level,
        list(logging.getLogger("codecarbon").filters),
        {n: signal.getsignal(n) for n in signal.valid_signals()},
        {t.name for t in threading.enumerate()},
        atexit._ncallbacks(),
    )


def test_the_host_is_as_it_was(monkeypatch, tmp_path, capfd) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a network call")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".codecarbon.config").write_text("[codecarbon]\nsave_to_api = true\n")
    before = state()
    made = ProcessMeters()
    made.read(1.0)
    made.close()
    assert state() == before
    assert [p.name for p in tmp_path.iterdir()] == [".codecarbon.config"]
    assert capfd.readouterr() == ("", "")


def test_a_busy_process_takes_its_share_of_the_design_power(meters, monkeypatch) -> None:
    monkeypatch.setattr(module.psutil, "cpu_times", lambda: SimpleNamespace(idle=0.0))
    monkeypatch.setattr(module, "busy_s", lambda _: 0.0)
    seconds = iter([10.0, 13.0])
    monkeypatch.setattr(meters, "_tree_s", lambda: next(seconds))
    meters._package, meters.watts, meters._cores, meters._worked_s = None, 120.0, 4, 10.0
    assert meters.read(1.0)["cpu"] == Joules(0.0, "estimated")
    assert meters.read(2.0)["cpu"] == Joules(120.0 * 3.0 / 4, "estimated")


def test_a_metered_package_is_shared_by_working_time(meters, monkeypatch) -> None:
    joules = SimpleNamespace(measure_power_and_energy=lambda _: (None, SimpleNamespace(kWh=900 / 3.6e6)))
    meters._package, meters._worked_s, meters._busy_s = joules, 0.0, 0.0
    monkeypatch.setattr(meters, "_tree_s", lambda: 2.0)
    monkeypatch.setattr(module, "busy_s", lambda _: 8.0)
    assert meters.read(1.0)["cpu"] == Joules(pytest.approx(225.0), "mixed")
    assert meters.read(1.0)["cpu"] == Joules(0.0, "mixed")  # nobody worked


def test_a_package_of_sysfs_is_found_and_metered(tmp_path, monkeypatch) -> None:
    domain = tmp_path / "intel-rapl" / "intel-rapl:0"
    domain.mkdir(parents=True)
    (domain / "name").write_text("package-0")
    (domain / "energy_uj").write_text("1000000")
    (domain / "max_energy_range_uj").write_text("262143328850")
    from codecarbon.core import cpu
    from codecarbon.external import hardware

    monkeypatch.setattr(module.platform, "system", lambda: "Linux")
    monkeypatch.setattr(cpu, "is_rapl_available", lambda: True)
    real = hardware.CPU

    def here(**keywords: object) -> object:
        return real(**keywords, rapl_dir=str(tmp_path / "intel-rapl"))

    monkeypatch.setattr(hardware, "CPU", here)
    package = module._package_meter()
    assert package is not None
    (domain / "energy_uj").write_text("31000000")
    assert package.measure_power_and_energy(1.0)[1].kWh * 3.6e6 == pytest.approx(30.0, rel=1e-4)


def test_memory_is_codecarbons(meters) -> None:
    from codecarbon.external.ram import RAM

    found = meters.read(3.0)["ram"]
    assert found == Joules(pytest.approx(3.0 * RAM(tracking_mode="process").total_power().W), "estimated")


CPUINFO = """processor\t: 0
model name\t: AMD EPYC 7763 64-Core Processor
physical id\t: 0

processor\t: 1
model name\t: AMD EPYC 7763 64-Core Processor
physical id\t: 1
"""


def test_the_processor_and_its_sockets(tmp_path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(CPUINFO)
    assert processor(path) == ("AMD EPYC 7763 64-Core Processor", 2)
    assert processor(tmp_path / "none")[1] == 1


@pytest.mark.parametrize(
    ("model", "watts"),
    [
        ("AMD EPYC 7763 64-Core Processor", 280.0),
        ("Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", 45.0),
        ("Some processor of the year 2080", None),
        ("", None),
    ],
)
def test_design_power(model, watts) -> None:
    assert design_power(model) == watts


def test_a_known_processor_counts_by_its_sockets_another_by_its_threads(monkeypatch) -> None:
    monkeypatch.setattr(module, "processor", lambda: ("unknown", 2))
    monkeypatch.setattr(module.psutil, "cpu_count", lambda: 6)
    made = ProcessMeters()
    made.close()
    assert made.watts == 6 * WATTS_PER_THREAD
    monkeypatch.setattr(module, "processor", lambda: ("AMD EPYC 7763 64-Core Processor", 2))
    made = ProcessMeters()
    made.close()
    assert made.watts == 2 * 280.0


def test_another_release_of_codecarbon_costs_no_more_than_the_model(monkeypatch) -> None:
    from codecarbon.core.cpu import TDP

    monkeypatch.delattr(TDP, "_get_matching_cpu")
    assert design_power("AMD EPYC 7763 64-Core Processor") is None
    monkeypatch.setattr(module, "data_folder", lambda: Path("/nowhere"))
    assert design_power("AMD EPYC 7763 64-Core Processor") is None


def test_the_hosts_own_use_of_codecarbon_is_heard(meters, caplog) -> None:
    logger = logging.getLogger("codecarbon")
    logger.addHandler(caplog.handler)
    try:
        logger.warning("ours")
        other = threading.Thread(target=lambda: logger.warning("theirs"))
        other.start()
        other.join()
    finally:
        logger.removeHandler(caplog.handler)
    assert [r.message for r in caplog.records] == ["theirs"]


@pytest.mark.slow
def test_the_estimate_is_codecarbons_process_mode(monkeypatch) -> None:
    """Over two seconds of work; clock ticks of the kernel (10 ms) are the tolerance."""
    import time

    from codecarbon.external.hardware import CPU

    ours = ProcessMeters()
    ours._package = None
    theirs = CPU(output_dir="", mode="cpu_load", model="", tdp=ours.watts, tracking_mode="process")
    theirs.start()
    ours.read(1.0)
    started = time.perf_counter()
    while time.perf_counter() - started < 2:
        sum(range(10_000))
    elapsed = time.perf_counter() - started
    expected = theirs.measure_power_and_energy(elapsed)[1].kWh * 3.6e6
    assert ours.read(elapsed)["cpu"].amount == pytest.approx(expected, rel=0.05)
    ours.close()
