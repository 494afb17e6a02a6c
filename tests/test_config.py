"""Every option is checked when it is set, and every one is documented."""

from __future__ import annotations

import dataclasses
import json

import pytest

from torchwatch import WatchConfig
from torchwatch.errors import ConfigError


@pytest.mark.parametrize(
    "wrong",
    [
        {"gradients_every": 0},
        {"activations_every": 2.5},
        {"activations_every": True},
        {"dense_steps": -1},
        {"flush_s": 0},
        {"flush_s": 2},
        {"system_s": "often"},
        {"interval_steps": None},
        {"declare": {"planed_steps": 3}},
        {"declare": {"zzz": 3}},
    ],
)
def test_values_out_of_range_are_named(wrong) -> None:
    with pytest.raises(
        ConfigError, match=next(iter(wrong)).split("=")[0] if "declare" not in wrong else "declared"
    ):
        WatchConfig(**wrong)


def test_the_nearest_declarable_is_offered() -> None:
    with pytest.raises(ConfigError, match="did you mean 'planned_steps'"):
        WatchConfig(declare={"planed_steps": 3})


def test_keywords_beat_the_config() -> None:
    config = WatchConfig(activations_every=7, ignore=("noisy-loss",))
    assert config.with_keywords(ignore=None, limits=None) == config
    assert config.with_keywords(ignore=("overfitting",)).ignore == ("overfitting",)
    assert config.with_keywords(ignore=("overfitting",)).activations_every == 7


def test_every_field_is_documented_and_plain() -> None:
    documented = WatchConfig.__doc__ or ""
    for field in dataclasses.fields(WatchConfig):
        assert f"        {field.name}: " in documented
    json.dumps(WatchConfig(declare={"planned_steps": 10}).as_json())
