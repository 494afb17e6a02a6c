from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest

import torchwatch.checks
from torchwatch.check import Category, Cause, Check, On, Severity, all_checks, select, select_known
from torchwatch.errors import ConfigError

CHECKS = list(all_checks().values())
FIRST = {
    "loss-nonfinite", "loss-explosion", "loss-divergence", "loss-spike", "loss-plateau", "no-learning",
    "overfitting", "noisy-loss", "gradient-nonfinite", "parameter-nonfinite", "vanishing-gradients",
    "exploding-gradients", "dead-units", "activation-collapse", "missing-zero-grad", "unoptimized-parameters",
    "no-op-step", "input-bound", "throughput-drop", "memory-growth",
}  # fmt: skip
HEADINGS = ["What it detects", "Why it matters", "What to do", "When it is fine"]


def test_the_checks_of_the_catalogue_are_there_one_per_file_in_their_category():
    assert set(all_checks()) >= FIRST
    home = Path(torchwatch.checks.__file__).parent
    files = {p for p in home.rglob("*.py") if not p.name.startswith("_")}
    expected = {home / c.category.value / f"{c.slug.replace('-', '_')}.py" for c in CHECKS}
    assert files == expected
    assert list(all_checks()) == sorted(all_checks())


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.slug)
def test_a_check_is_complete(check: Check):
    assert isinstance(check.severity, Severity)
    assert isinstance(check.cause, Cause)
    assert check.when
    assert all(isinstance(on, On) for on in check.when)
    assert check.resolve_after >= 1
    assert check.fix
    assert not set(check.reads) & set(check.uses)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.slug)
def test_a_check_is_documented_under_the_fixed_headings(check: Check):
    assert check.title.endswith(".")
    assert len(check.title) <= 80
    lines = check.doc.splitlines()
    assert [line for line in lines if line in HEADINGS] == HEADINGS


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.slug)
def test_limits_are_frozen_documented_numbers_that_survive_the_header(check: Check):
    assert check.limits.__dataclass_params__.frozen
    documented = type(check.limits).__doc__ or ""
    for name, value in dataclasses.asdict(check.limits).items():
        assert type(value) in (int, float), name
        assert f"{name}:" in documented, f"{name} is not documented"
    written = orjson.loads(orjson.dumps({check.slug: dataclasses.asdict(check.limits)}))
    again, skipped = select_known(written, ())
    assert skipped == ()
    assert {c.slug: c for c in again.checks}[check.slug] == check


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.slug)
def test_a_check_has_its_test_file(check: Check):
    home = Path(__file__).parent / "checks" / check.category.value
    assert (home / f"test_{check.slug.replace('-', '_')}.py").is_file()


# ------------------------------------------------------------------------------------------ selection


def a_limit(kind: type) -> tuple[str, str]:
    return next(
        (c.slug, name)
        for c in CHECKS
        for name, value in dataclasses.asdict(c.limits).items()
        if type(value) is kind
    )


def test_everything_is_selected_by_default_and_the_header_has_all_limits():
    chosen = select()
    assert [c.slug for c in chosen.checks] == list(all_checks())
    assert chosen.limits() == {c.slug: dataclasses.asdict(c.limits) for c in CHECKS}


def test_ignored_checks_are_left_out():
    chosen = select(ignore=["noisy-loss", "noisy-loss"])
    assert chosen.ignored == ("noisy-loss",)
    assert "noisy-loss" not in {c.slug for c in chosen.checks}
    assert select(ignore="noisy-loss") == chosen


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int64(3)])
@pytest.mark.parametrize("kind", [int, float])
def test_a_limit_is_overridden_in_its_own_kind(kind, value):
    slug, name = a_limit(kind)
    limits = select({slug: {name: value}}).limits()[slug]
    assert limits[name] == 3
    assert type(limits[name]) is kind
    assert all_checks()[slug].limits != limits, "the defaults stay"


@pytest.mark.parametrize(
    ("limits", "ignore", "message"),
    [
        ({"overfiting": {}}, (), "there is no check 'overfiting'; did you mean 'overfitting'?"),
        (None, ["zzz"], "there is no check 'zzz'"),
        (None, [3], "there is no check 3"),
        ({"overfitting": 5}, (), "limits of check 'overfitting' must be a mapping, not 5"),
        (5, (), "limits must be a mapping, not 5"),
    ],
)
def test_an_unknown_check_is_one_clear_sentence(limits, ignore, message):
    with pytest.raises(ConfigError) as error:
        select(limits, ignore)
    assert str(error.value) == message


@pytest.mark.parametrize("value", ["3", None, True, math.nan, 1 + 2j, [3]])
@pytest.mark.parametrize("kind", [int, float])
def test_a_limit_that_is_no_number_is_refused(kind, value):
    slug, name = a_limit(kind)
    with pytest.raises(ConfigError, match=f"limit '{name}' of check '{slug}' must be a number, not "):
        select({slug: {name: value}})


@pytest.mark.parametrize("value", [2.5, math.inf])
def test_a_whole_number_must_be_whole(value):
    slug, name = a_limit(int)
    with pytest.raises(ConfigError, match="must be a whole number"):
        select({slug: {name: value}})


def test_an_unknown_limit_names_the_nearest():
    slug, name = a_limit(float)
    with pytest.raises(ConfigError, match=f"check '{slug}' has no limit '{name}s'; did you mean '{name}'?"):
        select({slug: {f"{name}s": 1}})


def test_names_of_another_version_are_skipped_and_told():
    slug, name = a_limit(float)
    chosen, skipped = select_known(
        {slug: {name: 77.0, "later": 1}, "future-check": {"x": 1}}, ["gone-check", "noisy-loss"]
    )
    assert skipped == ("gone-check", f"{slug}.later", "future-check")
    assert chosen.limits()[slug][name] == 77.0
    assert chosen.ignored == ("noisy-loss",)


def test_categories_are_folders_and_causes_are_ordered():
    assert [c.value for c in Category][:3] == ["loss", "gradients", "activations"]
    assert Cause.WIRING < Cause.INPUT < Cause.PARAMETER < Cause.ACTIVATION < Cause.GRADIENT < Cause.LOSS
    assert [s.word for s in Severity] == ["info", "warning", "critical"]


def test_checks_engine_and_diagnosis_never_import_torch():
    code = (
        "import sys, torchwatch.diagnosis; from torchwatch.check import all_checks; all_checks(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
