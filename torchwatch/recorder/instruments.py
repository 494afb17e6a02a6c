"""Everything that is read beside the training, in the recorder's thread: memory, machine, GPUs, energy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psutil

from torchwatch.config import WatchConfig
from torchwatch.intervals import tidy
from torchwatch.recorder.energy import Energy
from torchwatch.recorder.gpus import Gpus
from torchwatch.recorder.memory import READ_S, Memory
from torchwatch.recorder.stack import digest
from torchwatch.recorder.system import Machine

_SETTLED_S = 1.0
"""A short run does without the unique memory (seconds)."""


class Instruments:
    """What the recorder asks for ``system`` and ``interval`` records and at the end.

    Args:
        config: whether energy is wanted, and the country.
        clock: seconds since the start of the run.
        thread: the thread that trains; its stack is watched (default: the one that makes this).
        gpus: NVML.
        energy: meters; default: as the configuration says.
    """

    def __init__(
        self,
        config: WatchConfig,
        clock: Callable[[], float],
        thread: int | None = None,
        gpus: Gpus | None = None,
        energy: Energy | None = None,
    ) -> None:
        self._clock = clock
        self._thread = threading.get_ident() if thread is None else thread
        self._memory = Memory()
        self._machine = Machine()
        self._gpus = gpus if gpus is not None else Gpus()
        self._energy = energy if energy is not None else Energy(config.country)
        self._wanted = config.energy
        self._process = psutil.Process()
        self._process.cpu_percent()
        self._cpu: tuple[float, float | None] = (clock(), None)
        self._memory.read(clock())
        self._retries = self._memory.retries or 0
        self._problems: list[tuple[str, str]] = []

    def system(self) -> dict[str, Any]:
        """Fields of :class:`~torchwatch.records.System`; those that cannot be read are missing."""
        now = self._clock()
        return {
            **self._told("memory", lambda: self._of_system(now)),
            **self._told("machine", self._machine.read),
            **self._told("gpus", lambda: self._of_gpus(now)),
            **self._told("stack", lambda: {"stack": digest(self._thread)}),
        }

    def interval(self) -> dict[str, Any]:
        """Fields of :class:`~torchwatch.records.Interval`, for the time since this was asked before."""
        now = self._clock()
        fields = self._told("memory", lambda: self._of_interval(now))
        if self._wanted:
            fields |= self._told("energy", lambda: self._energy.interval(now))
        return fields

    def end(self) -> dict[str, Any]:
        """Fields of :class:`~torchwatch.records.End`, for the whole run."""
        return self._told("energy", self._of_end) if self._wanted else {}

    def coverage(self) -> dict[str, str]:
        """What of this is read, in the words of the layout's coverage."""
        return {"gpus": self._gpus.coverage(), "energy": "ok" if self._wanted else "off"}

    def loading_s(self) -> float:
        """CPU time that went into loading libraries since this was asked before."""
        seconds, self._energy.loading_s = self._energy.loading_s, 0.0
        return seconds

    def problems(self) -> list[tuple[str, str]]:
        """What has gone wrong since this was asked before: (topic, sentence)."""
        found, self._problems = self._problems, []
        found += [("energy", sentence) for sentence in self._energy.problems]
        self._energy.problems = []
        return found

    def close(self) -> None:
        """Leave no trace."""
        self._energy.close()
        self._gpus.close()

    def _told(self, topic: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What an instrument says; one that fails says nothing, and that is noted."""
        try:
            return read()
        except Exception as error:  # noqa: BLE001 - the other instruments go on
            self._problems.append((topic, f"{topic} cannot be read: {type(error).__name__}: {error}"))
            return {}

    def _of_system(self, now: float) -> dict[str, Any]:
        unique = now >= _SETTLED_S and self._memory.read_unique(now)
        memory = self._memory.read(now)
        if not unique:
            del memory["uss_bytes"]
        return memory

    def _of_gpus(self, now: float) -> dict[str, Any]:
        gpus = self._gpus.read()
        if self._wanted:
            self._energy.read_gpus(now, self._memory.devices, gpus)
            self._energy.tick(now)
        return {"gpus": gpus} if gpus else {}

    def _of_interval(self, now: float) -> dict[str, Any]:
        fields = self._memory.read(now)
        fields.pop("mps_allocated_bytes", None)
        if self._memory.retries is not None:
            fields["alloc_retries"] = self._memory.retries - self._retries
            self._retries = self._memory.retries
        return {**fields, "cpu_percent": self._share(now)}

    def _of_end(self) -> dict[str, Any]:
        now = self._clock()
        self._memory.read(now)
        if self._memory.devices:
            self._energy.read_gpus(now, self._memory.devices, self._gpus.read())
        return self._energy.end(now)

    def _share(self, now: float) -> float | None:
        """This process's share of a core since it was asked before; on very short intervals the last one."""
        asked_s, share = self._cpu
        if share is None or now - asked_s >= READ_S:
            share = tidy(self._process.cpu_percent())
            self._cpu = (now, share)
        return share
