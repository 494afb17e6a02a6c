"""device-underutilized: there is an accelerator, and the model is not on it."""

import dataclasses

from tests.checks.machines import gpu, machine, on
from tests.helpers_checks import assert_fires, assert_quiet

SLUG = "device-underutilized"
FREE = {"machine_cpu_percent": 50.0, "gpus": [gpu(utilization_percent=0)]}


def run(fields=FREE, header=None, seconds=60, **more):
    return machine(seconds, lambda s: fields, on("cpu") if header is None else header, **more)


def test_a_forgotten_to_device():
    alert = assert_fires(SLUG, run(), severity="warning", layer=None, since=(1, 1), by=40)
    assert alert.title == "The model is not on the H200"
    assert "1.0 s" in alert.detail


def test_a_torch_without_cuda_is_named():
    alert = assert_fires(SLUG, run(header=on("cpu", software={"torch": "2.13.0+cpu"})))
    assert "built without CUDA" in alert.detail
    assert (
        "built without" not in assert_fires(SLUG, run(header=on("cpu", software={"torch": "2.13.0"}))).detail
    )


def test_apples_gpu_is_an_info():
    assert_fires(SLUG, run({"machine_cpu_percent": 5.0, "mps_allocated_bytes": 0}), severity="info")
    assert_quiet(SLUG, run({"machine_cpu_percent": 5.0, "mps_allocated_bytes": 4096}))


def test_quiet_where_the_model_is_on_it_or_there_is_none():
    assert_quiet(SLUG, run(header=on("cuda:0")))
    assert_quiet(SLUG, run(header=on("mps:0")))
    assert_quiet(SLUG, run({"machine_cpu_percent": 50.0}))


def test_near_miss_the_model_came_there_later():
    assert_quiet(SLUG, run(FREE | {"cuda_allocated_bytes": 4096}))


def test_near_miss_short_steps():
    fast = run(step_time_s=0.015)
    assert_quiet(SLUG, fast)
    assert_fires(SLUG, fast, limits={"step_s": 0})


def test_near_miss_a_short_run():
    assert_quiet(SLUG, run(seconds=25))
    assert_fires(SLUG, run(seconds=25), limits={"run_s": 0})


def test_a_header_that_does_not_say():
    body = run()
    for device in ({}, {"parameters_on": []}, {"parameters_on": "cpu"}):
        assert_quiet(SLUG, [dataclasses.replace(body[0], device=device), *body[1:]], ready=False)
