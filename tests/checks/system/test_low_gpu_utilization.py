"""low-gpu-utilization: the GPU idles for a good part of the time."""

from tests.checks.machines import gpu, idle, machine, on
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "low-gpu-utilization"


def run(used, seconds=120, header=None, **more):
    def fields(second):
        return {"gpus": [gpu(utilization_percent=used(second) if callable(used) else used)]} | more

    return machine(seconds, fields, header)


def test_a_gpu_that_works_half_the_time_is_noted():
    alert = assert_fires(SLUG, run(50), severity="info", since=(1, 1), by=62)
    assert "50 %" in alert.title


def test_a_gpu_that_idles_for_minutes_is_a_warning():
    assert_fires(SLUG, run(10, seconds=400), severity="warning", since=(1, 1))


def test_quiet_on_a_busy_one():
    assert_quiet(SLUG, run(70))
    assert_quiet(SLUG, run(lambda s: 100 if s % 3 else 0))


def test_near_miss_a_minute_of_idling_is_no_warning():
    assert_quiet(SLUG, run(10, seconds=299), allow_info=True)
    assert_quiet(SLUG, run(lambda s: 90 if s < 200 else 10, seconds=320), allow_info=True)
    assert_fires(SLUG, run(lambda s: 90 if s < 200 else 10, seconds=320), severity="info", since=(150, 250))
    assert_fires(SLUG, run(10), severity="warning", limits={"warning_s": 0})


def test_near_miss_too_short():
    assert_quiet(SLUG, run(10, seconds=59), ready=False)


def test_near_miss_it_idles_while_nothing_is_trained():
    evaluating = idle(run(90), 300, gpus=[gpu(utilization_percent=1)])
    assert_quiet(SLUG, evaluating)
    assert_fires(SLUG, evaluating, limits={"active_s": 0}, severity="warning")


def test_not_where_the_model_is_on_the_processor():
    assert_quiet(SLUG, run(0, header=on("cpu")), ready=False)


def test_a_model_that_came_to_the_gpu_later():
    assert_fires(SLUG, run(50, header=on("cpu"), cuda_allocated_bytes=1000), severity="info")


def test_the_busiest_of_several_counts():
    readings = [gpu(0, utilization_percent=95), gpu(1, utilization_percent=5)]
    both = {"device": {"parameters_on": ["cuda:0", "cuda:1"]}}
    assert_quiet(SLUG, machine(120, lambda s: {"gpus": readings}, both))


def test_limits():
    assert_quiet(SLUG, run(50), limits={"info": 40.0})
    assert_fires(SLUG, run(50, seconds=400), limits={"warning": 60.0}, severity="warning")
    assert_fires(SLUG, run(50, seconds=30), limits={"seconds": 20.0})
