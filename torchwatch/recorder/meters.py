"""Energy of the processor and the memory that this process uses, with codecarbon's parts.

Its hardware classes and tables are used, not its tracker: that starts threads, reads configuration files
(which may switch network calls on), runs other programs to name the processor and imports pandas.
"""

from __future__ import annotations

import csv
import logging
import platform
import threading
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from torchwatch.recorder.grid import data_folder
from torchwatch.recorder.system import busy_s

JOULES_PER_KWH = 3.6e6
WATTS_PER_THREAD = 4.0
"""Of a processor that codecarbon's table does not have: its own assumption (``DEFAULT_POWER_PER_CORE``)."""

MEASURED, MIXED, ESTIMATED = "measured", "mixed", "estimated"


class Joules(NamedTuple):
    """An amount of energy and where it is from.

    ``measured``: a meter of this part. ``mixed``: a meter of the whole package, of which this process gets
    its share of the working time. ``estimated``: power by rule of thumb.
    """

    amount: float
    source: str


class ProcessMeters:
    """Processor and memory of this process and its children.

    Processor: Intel's and AMD's own meter (RAPL) where it may be read, shared by working time; else thermal
    design power of the model, times the share of all cores. Memory: codecarbon's power per module.

    Making one imports codecarbon, once per process: some 0.1 s in which other threads run slowly.

    Raises:
        ImportError: codecarbon is not installed.
    """

    def __init__(self) -> None:
        self._quiet = _OtherThreads()
        logging.getLogger("codecarbon").addFilter(self._quiet)
        from codecarbon.external.ram import RAM

        self._ram = RAM(tracking_mode="process")
        self._cores = psutil.cpu_count() or 1
        self._package = _package_meter()
        self.watts = self._package_watts()
        self._process = psutil.Process()
        self._worked_s, self._busy_s = self._tree_s(), busy_s(psutil.cpu_times())

    def read(self, elapsed_s: float) -> dict[str, Joules]:
        """Energy since the reading before, which is ``elapsed_s`` ago, by part."""
        worked_s, busy = self._tree_s(), busy_s(psutil.cpu_times())
        mine, all_s = max(worked_s - self._worked_s, 0.0), busy - self._busy_s
        self._worked_s, self._busy_s = worked_s, busy
        if self._package is not None:
            metered = self._package.measure_power_and_energy(elapsed_s)[1].kWh * JOULES_PER_KWH
            cpu = Joules(metered * min(mine / all_s, 1.0) if all_s > 0 else 0.0, MIXED)
        else:
            cpu = Joules(self.watts * mine / self._cores, ESTIMATED)
        return {"cpu": cpu, "ram": Joules(self._ram.total_power().W * elapsed_s, ESTIMATED)}

    def close(self) -> None:
        """Leave codecarbon's logger as it was."""
        logging.getLogger("codecarbon").removeFilter(self._quiet)

    def _tree_s(self) -> float:
        """Seconds that this process and its children have worked; those of children that ended included."""
        total = 0.0
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                total += sum(process.cpu_times()[:4])  # user, system, and the same of ended children
            except psutil.Error:  # it has just ended
                continue
        return total

    def _package_watts(self) -> float:
        model, sockets = processor()
        known = design_power(model)
        return known * sockets if known is not None else WATTS_PER_THREAD * self._cores


class _OtherThreads(logging.Filter):
    """Drops what codecarbon logs in this thread; a host that uses it too hears its own."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


def _package_meter() -> Any:
    """Codecarbon's processor with a meter, started; None where there is none that may be read."""
    from codecarbon.core.cpu import is_rapl_available
    from codecarbon.external.hardware import CPU

    try:
        if platform.system() != "Linux" or not is_rapl_available():
            return None
        meter: Any = CPU(output_dir="", mode="intel_rapl", model="", tdp=0, tracking_mode="process")
        meter.start()
    except Exception:  # noqa: BLE001 - half a meter is none
        return None
    return meter


def processor(description: Path = Path("/proc/cpuinfo")) -> tuple[str, int]:
    """The processor's name and the number of its sockets; elsewhere than on Linux what Python knows."""
    try:
        lines = description.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor(), 1
    pairs = [(k.strip(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
    name = next((v for k, v in pairs if k == "model name"), platform.processor())
    return name, len({v for k, v in pairs if k == "physical id"}) or 1


def design_power(model: str) -> float | None:
    """Thermal design power (watts) of a processor in codecarbon's table, None if it is not there."""
    from codecarbon.core.cpu import TDP

    folder = data_folder()
    find = getattr(TDP, "_get_matching_cpu", None)
    if not model or folder is None or find is None:
        return None
    try:
        with (folder / "hardware" / "cpu_power.csv").open(encoding="utf-8", newline="") as lines:
            table = {row["Name"]: row["TDP"] for row in csv.DictReader(lines)}
        # It asks its table for one column only: a map of names will do, and spares importing pandas.
        name = find(None, model, {"Name": list(table)})
        return float(table[name]) if name is not None else None
    except Exception:  # noqa: BLE001 - a table or a method of another release, or a number that is none
        return None
