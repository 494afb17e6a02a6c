"""gpu-throttled: the GPU slows itself down."""

import pytest

from tests.checks.machines import gpu, machine, on
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "gpu-throttled"


def run(seconds=40, header=None, since=11, **fields):
    """Normal until second ``since``, then as the fields say."""

    def reading(second):
        cool = {"temperature_c": 60, "throttle": []}
        return {"gpus": [gpu(**(fields if second >= since else cool)), gpu(1, temperature_c=50)]}

    return machine(seconds, reading, header)


@pytest.mark.parametrize(
    "word", ["hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"]
)
def test_a_slowdown_is_found_after_ten_seconds(word):
    alert = assert_fires(
        SLUG, run(throttle=[word], temperature_c=80), severity="warning", since=(11, 11), by=21
    )
    assert alert.title == "GPU 0 slows down at 80 °C"
    assert word in alert.detail


def test_heat_alone():
    alert = assert_fires(SLUG, run(temperature_c=88), severity="warning", since=(11, 11))
    assert alert.title == "GPU 0 is at 88 °C"
    assert_quiet(SLUG, run(temperature_c=88), limits={"temperature_c": 0})
    assert_fires(SLUG, run(throttle=["hw_slowdown"]), limits={"temperature_c": 0})


@pytest.mark.parametrize(
    "fields",
    [{"temperature_c": 84}, {"throttle": ["sw_power_cap", "application_clocks"], "temperature_c": 70}, {}],
    ids=["warm", "at its power limit", "nothing is told"],
)
def test_near_misses(fields):
    assert_quiet(SLUG, run(**fields))


def test_near_miss_for_some_seconds():
    assert_quiet(SLUG, run(seconds=20, temperature_c=90))
    assert_fires(SLUG, run(seconds=20, temperature_c=90), limits={"seconds": 5.0})


def test_near_miss_another_processs_gpu():
    assert_quiet(SLUG, run(temperature_c=90, header=on("cuda:1")))
    assert_quiet(SLUG, run(temperature_c=90, header=on("cpu")), ready=False)


def test_near_miss_it_comes_and_goes():
    body = machine(60, lambda s: {"gpus": [gpu(throttle=["hw_slowdown"] if s % 5 else [])]})
    assert_quiet(SLUG, body)
