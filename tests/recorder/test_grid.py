"""CO2 factors: those of codecarbon, found without importing it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from torchwatch.recorder import grid as module
from torchwatch.recorder.grid import WORLD_G_PER_KWH, grid


def test_the_world_and_a_country() -> None:
    assert grid(None) == (WORLD_G_PER_KWH, "world", None)
    france = grid("fra")
    assert (france.country, france.problem) == ("FRA", None)
    assert 20 < france.g_per_kwh < 120


def test_an_unknown_country_is_said_and_the_world_is_taken() -> None:
    found = grid("Mars")
    assert (found.g_per_kwh, found.country) == (WORLD_G_PER_KWH, "world")
    assert found.problem == "no CO2 factor for country 'Mars': the world's average is used"


@pytest.mark.parametrize("content", [None, "{}", "nonsense"])
def test_tables_that_cannot_be_read_are_said(tmp_path, monkeypatch, content) -> None:
    (tmp_path / "private_infra").mkdir()
    if content is not None:
        for name in ("carbon_intensity_per_source.json", "global_energy_mix.json"):
            (tmp_path / "private_infra" / name).write_text(content)
    monkeypatch.setattr(module, "data_folder", lambda: tmp_path)
    found = grid("FRA")
    assert (found.g_per_kwh, found.country) == (WORLD_G_PER_KWH, "world")
    assert "cannot be read" in found.problem


def test_without_codecarbon(monkeypatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    assert module.data_folder() is None
    assert grid("FRA").country == "world"


def test_codecarbon_is_not_imported_for_it() -> None:
    code = "import sys; from torchwatch.recorder.grid import grid; grid('DEU'); "
    code += "print('codecarbon' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_every_factor_is_codecarbons() -> None:
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    source = DataSource()
    emissions = Emissions(source)
    for country in source.get_global_energy_mix_data():
        theirs = emissions.get_country_emissions(Energy(1.0), GeoMetadata(country_iso_code=country))
        assert grid(country).g_per_kwh == pytest.approx(theirs * 1000)
