"""NVML: which GPUs, which fields, and quiet where there is none of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from torchwatch.recorder.gpus import THROTTLE, Gpus


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


class Nvml:
    """Three cards of one kind; ``broken`` are questions that the driver does not answer."""

    NVML_TEMPERATURE_GPU = 0
    uuids = ("GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3")

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = {
            "Name": "NVIDIA H200",
            "UtilizationRates": SimpleNamespace(gpu=87),
            "MemoryInfo": SimpleNamespace(used=5_000, total=141_000),
            "PowerUsage": 432_100,
            "Temperature": 61,
            "CurrentClocksEventReasons": 0x1 | 0x4 | 0x40,
            "TotalEnergyConsumption": 9_000,
            **answers,
        }
        self.asked: list[str] = []
        self.users = 0
        self.fail: Exception | None = None

    def nvmlInit(self) -> None:
        if self.fail is not None:
            raise self.fail
        self.users += 1

    def nvmlShutdown(self) -> None:
        self.users -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return self.uuids[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in (*self.uuids, "MIG-7"):
            raise NVMLError("not found")
        return uuid

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return handle

    def __getattr__(self, name: str) -> Any:
        what = name.removeprefix("nvmlDeviceGet")
        if what not in self.answers:
            raise AttributeError(name)

        def ask(handle: str, *_: object) -> Any:
            self.asked.append(f"{handle} {what}")
            answer = self.answers[what]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask


def found(nvml: Nvml, environment: dict[str, str] | None = None) -> list[str]:
    gpus = Gpus(nvml, environment or {})
    gpus.read()
    return [line.split()[0] for line in nvml.asked if line.endswith("Name")]


def test_a_reading() -> None:
    gpus = Gpus(Nvml(), {"CUDA_VISIBLE_DEVICES": "1"})
    assert gpus.read() == [
        {
            "index": 0,
            "name": "NVIDIA H200",
            "utilization_percent": 87,
            "memory_used_bytes": 5_000,
            "memory_total_bytes": 141_000,
            "power_w": 432.1,
            "temperature_c": 61,
            "throttle": ["sw_power_cap", "hw_thermal_slowdown"],
            "energy_j": 9.0,
        }
    ]
    assert gpus.coverage() == "ok"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3"]),
        ("2,0", ["GPU-cccc-3", "GPU-aaaa-1"]),
        (" 1 ", ["GPU-aabb-2"]),
        ("", []),
        ("-1", []),
        ("0,-1,2", ["GPU-aaaa-1"]),
        ("0,7,2", ["GPU-aaaa-1"]),
        ("GPU-cccc-3", ["GPU-cccc-3"]),
        ("GPU-cc,GPU-aabb", ["GPU-cccc-3", "GPU-aabb-2"]),
        ("GPU-aa", []),  # two begin so
        ("MIG-7", ["MIG-7"]),
        ("MIG-8", []),
        ("NoDevFiles", []),
    ],
)
def test_only_visible_gpus_are_read(visible, expected) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert found(Nvml(), environment) == expected


def test_once_cuda_is_in_use_it_says_which_is_which(monkeypatch) -> None:
    nvml = Nvml()
    gpus = Gpus(nvml, {})
    assert len(gpus.read()) == 3
    order = ("cccc-3", "aaaa-1")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=order[i]))
    nvml.asked.clear()
    assert len(gpus.read()) == 2
    assert [line.split()[0] for line in nvml.asked if line.endswith("PowerUsage")] == [
        "GPU-cccc-3",
        "GPU-aaaa-1",
    ]


def test_what_the_driver_does_not_support_is_left_out_and_not_asked_again() -> None:
    nvml = Nvml(TotalEnergyConsumption=NVMLError_NotSupported(), UtilizationRates=NVMLError("lost"))
    gpus = Gpus(nvml, {"CUDA_VISIBLE_DEVICES": "0"})
    for _ in range(3):
        reading = gpus.read()[0]
        assert "energy_j" not in reading
        assert "utilization_percent" not in reading
        assert reading["power_w"] == 432.1
    assert sum("TotalEnergy" in line for line in nvml.asked) == 1
    assert sum("Utilization" in line for line in nvml.asked) == 3


def test_old_drivers_call_it_throttling() -> None:
    nvml = Nvml(CurrentClocksThrottleReasons=0x80)
    del nvml.answers["CurrentClocksEventReasons"]
    assert Gpus(nvml, {"CUDA_VISIBLE_DEVICES": "0"}).read()[0]["throttle"] == ["hw_power_brake_slowdown"]


def test_no_driver_is_said_and_not_tried_again() -> None:
    nvml = Nvml()
    nvml.fail = NVMLError_LibraryNotFound("NVML Shared Library Not Found")
    gpus = Gpus(nvml, {})
    assert gpus.read() == []
    assert gpus.coverage() == "no NVIDIA driver"
    nvml.fail = None
    assert gpus.read() == []
    assert gpus.energy_j(0) is None
    gpus.close()
    assert nvml.users == 0


def test_another_failure_is_named() -> None:
    nvml = Nvml()
    nvml.fail = NVMLError("Insufficient Permissions")
    assert Gpus(nvml, {}).coverage() == "NVML: Insufficient Permissions"


def test_closing_gives_nvml_back_once() -> None:
    nvml = Nvml()
    gpus = Gpus(nvml, {})
    gpus.read()
    assert nvml.users == 1
    gpus.close()
    gpus.close()
    assert nvml.users == 0
    assert gpus.read() == []


def test_our_bits_are_nvmls() -> None:
    pynvml = pytest.importorskip("pynvml")
    assert {
        pynvml.nvmlClocksEventReasonSwPowerCap: "sw_power_cap",
        pynvml.nvmlClocksEventReasonHwSlowdown: "hw_slowdown",
        pynvml.nvmlClocksEventReasonSwThermalSlowdown: "sw_thermal_slowdown",
        pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "hw_thermal_slowdown",
        pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "hw_power_brake_slowdown",
    }.items() <= THROTTLE.items()


def test_the_real_driver_or_none() -> None:
    gpus = Gpus()
    assert isinstance(gpus.read(), list)
    gpus.close()
