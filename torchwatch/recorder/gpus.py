"""NVIDIA GPUs, as their driver sees them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

THROTTLE = {
    0x2: "application_clocks",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clocks",
    0x200: "board_limit",
    0x400: "reliability",
}
"""Reasons for lower clocks, by NVML's bit (``nvmlClocksEventReason…``); being idle is none."""


class Gpus:
    """The GPUs that this process may use, in CUDA's order, through NVML.

    What the driver does not tell of a GPU is left out, and not asked again. Keys of a reading: ``index`` (as
    in ``cuda:0``), ``name``, ``utilization_percent`` (time in which a kernel ran, 0 to 100),
    ``memory_used_bytes`` and ``memory_total_bytes`` (of the whole card), ``power_w``, ``temperature_c``,
    ``throttle`` (words of :data:`THROTTLE`), ``energy_j`` (since the driver was loaded).

    Args:
        nvml: the module ``pynvml``, imported when it is needed.
        environment: where ``CUDA_VISIBLE_DEVICES`` is; its numbers are taken as NVML's until CUDA itself is
            in use and tells. (On machines with different cards the two may count differently before that.)
    """

    def __init__(self, nvml: Any = None, environment: Mapping[str, str] = os.environ) -> None:
        self._nvml = nvml
        self._environment = environment
        self._handles: list[Any] = []
        self._names: list[str | None] = []
        self._refused: set[tuple[int, str]] = set()
        self._open = self._exact = False
        self.problem: str | None = None

    def open(self) -> bool:
        """Start; False where there is no driver, and :attr:`problem` says so. Later calls do nothing."""
        if self._open or self.problem is not None:
            return self._open
        try:
            if self._nvml is None:
                import pynvml

                self._nvml = pynvml
            self._nvml.nvmlInit()
        except ImportError:
            self.problem = "pynvml is not installed"
        except Exception as error:  # noqa: BLE001 - NVML's errors have their own tree
            missing = type(error).__name__ in ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded")
            self.problem = "no NVIDIA driver" if missing else f"NVML: {error}"
        else:
            self._open = True
            self._find()
        return self._open

    def read(self) -> list[dict[str, Any]]:
        """One map per GPU; empty where there is none."""
        if not self.open():
            return []
        if not self._exact and torch.cuda.is_initialized():
            self._find()
        return [self._read(index, handle) for index, handle in enumerate(self._handles)]

    def coverage(self) -> str:
        """``ok``, or why no GPU is read."""
        self.open()
        return self.problem or ("ok" if self._handles else "no GPU is visible to this process")

    def energy_j(self, index: int) -> float | None:
        """Joules that a GPU used since its driver was loaded; None where it does not count them."""
        if not self._open or index >= len(self._handles):
            return None
        nvml, handle = self._nvml, self._handles[index]
        millijoules = self._ask(index, "energy_j", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        return None if millijoules is None else millijoules / 1000

    def close(self) -> None:
        """Leave NVML as it was; it counts who uses it."""
        if self._open:
            self._open, self._handles = False, []
            self.problem = "closed"
            with contextlib.suppress(Exception):  # the driver is gone: there is nothing to leave
                self._nvml.nvmlShutdown()

    # ------------------------------------------------------------------ which

    def _find(self) -> None:
        """The visible GPUs: as CUDA says where it is in use, else as the environment does."""
        self._exact = torch.cuda.is_initialized()
        self._refused = set()
        try:
            self._handles = (self._of_cuda() if self._exact else None) or self._of_environment()
        except Exception as error:  # noqa: BLE001 - NVML's errors have their own tree
            self._handles, self.problem = [], f"NVML: {error}"
        self._names = [
            self._ask(i, "name", lambda h=h: self._nvml.nvmlDeviceGetName(h))  # type: ignore[misc]
            for i, h in enumerate(self._handles)
        ]

    def _of_cuda(self) -> list[Any] | None:
        handles = []
        for device in range(torch.cuda.device_count()):
            uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
            handle = None if uuid is None else self._by_uuid(f"GPU-{uuid}")
            if handle is None:
                return None
            handles.append(handle)
        return handles

    def _of_environment(self) -> list[Any]:
        wanted = self._environment.get("CUDA_VISIBLE_DEVICES")
        count = self._nvml.nvmlDeviceGetCount()
        everything = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        if wanted is None:
            return everything
        handles = []
        for word in (w.strip() for w in wanted.split(",")):
            handle = self._by_word(word, everything)
            if handle is None:  # CUDA stops at the first that it does not know
                break
            handles.append(handle)
        return handles

    def _by_word(self, word: str, everything: list[Any]) -> Any:
        if word.isdigit():
            return everything[int(word)] if int(word) < len(everything) else None
        if word.startswith("MIG-"):
            return self._by_uuid(word)
        if word.startswith("GPU-"):  # CUDA takes any beginning that is unique
            uuids = [self._nvml.nvmlDeviceGetUUID(h) for h in everything]
            found = [h for h, uuid in zip(everything, uuids, strict=True) if uuid.startswith(word)]
            return found[0] if len(found) == 1 else None
        return None

    def _by_uuid(self, uuid: str) -> Any:
        try:
            return self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        except Exception:  # noqa: BLE001 - not one of NVML's
            return None

    # ------------------------------------------------------------------ what

    def _read(self, index: int, handle: Any) -> dict[str, Any]:
        nvml = self._nvml
        memory = self._ask(index, "memory", lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        power = self._ask(index, "power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        found = {
            "name": self._names[index],
            "utilization_percent": self._ask(
                index, "utilization_percent", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu
            ),
            "memory_used_bytes": None if memory is None else memory.used,
            "memory_total_bytes": None if memory is None else memory.total,
            "power_w": None if power is None else power / 1000,
            "temperature_c": self._ask(
                index,
                "temperature_c",
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
            ),
            "throttle": self._ask(index, "throttle", lambda: self._throttle(handle)),
            "energy_j": self.energy_j(index),
        }
        return {"index": index, **{k: v for k, v in found.items() if v is not None}}

    def _throttle(self, handle: Any) -> list[str]:
        ask = getattr(self._nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        reasons = (ask or self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons)(handle)
        return [word for bit, word in THROTTLE.items() if reasons & bit]

    def _ask(self, index: int, what: str, question: Callable[[], Any]) -> Any:
        """The answer, None where there is none; what the driver does not support is not asked again."""
        if (index, what) in self._refused:
            return None
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - NVML's errors have their own tree
            if type(error).__name__ in ("NVMLError_NotSupported", "NVMLError_FunctionNotFound"):
                self._refused.add((index, what))
            return None
