"""high-cpu: the processor is full while the accelerator waits."""

import pytest

from tests.checks.machines import gpu, machine, on
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "high-cpu"


def run(cpu=97.0, used=10, seconds=60, header=None, others=()):
    def fields(second):
        percent = cpu(second) if callable(cpu) else cpu
        reading = used(second) if callable(used) else used
        return {"machine_cpu_percent": percent, "gpus": [gpu(utilization_percent=reading), *others]}

    return machine(seconds, fields, header)


def test_fires_after_half_a_minute():
    alert = assert_fires(SLUG, run(), severity="info", layer=None, since=(1, 2), by=32)
    assert "97 %" in alert.title


@pytest.mark.parametrize(
    "fields", [{"cpu": 89.0}, {"used": 31}, {"seconds": 29}], ids=["cpu", "gpu", "too short"]
)
def test_near_misses(fields):
    assert_quiet(SLUG, run(**fields), ready=fields.get("seconds", 60) > 30)


def test_near_miss_one_reading_in_between():
    assert_quiet(SLUG, run(cpu=lambda s: 50.0 if s % 20 == 0 else 99.0, seconds=200))
    assert_quiet(SLUG, run(used=lambda s: 90 if s % 20 == 0 else 0, seconds=200))


def test_only_the_gpu_that_the_model_is_on_counts():
    assert_quiet(SLUG, run(used=5, others=[gpu(1, utilization_percent=80)], header=on("cuda:1")))
    assert_fires(SLUG, run(used=80, others=[gpu(1, utilization_percent=5)], header=on("cuda:1")))


def test_a_model_on_the_processor_is_another_matter():
    assert_quiet(SLUG, run(header=on("cpu")), ready=False)


def test_limits():
    assert_quiet(SLUG, run(), limits={"cpu_percent": 98.0})
    assert_quiet(SLUG, run(), limits={"gpu_percent": 5.0})
    assert_quiet(SLUG, run(), limits={"seconds": 100.0}, ready=False)
