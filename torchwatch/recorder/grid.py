"""How much CO2 a kilowatt-hour stands for."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, NamedTuple

WORLD = "world"
WORLD_G_PER_KWH = 475.0
"""The world's average in 2018: IEA, "Global Energy & CO2 Status Report 2019"; codecarbon has the same."""


class Grid(NamedTuple):
    """Grams of CO2 equivalent per kilowatt-hour, of which country, and what was wrong with the question."""

    g_per_kwh: float
    country: str
    problem: str | None = None


def data_folder() -> Path | None:
    """Where codecarbon keeps its tables. It is not imported for that."""
    spec = importlib.util.find_spec("codecarbon")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) / "data" if places else None


def grid(country: str | None) -> Grid:
    """The factor of a country from codecarbon's tables (Our World in Data), or the world's average.

    Args:
        country: three letters of ISO 3166; None: the world.
    """
    folder = data_folder()
    try:
        tables = folder / "private_infra" if folder is not None else Path()
        world = float(_table(tables / "carbon_intensity_per_source.json")["world_average"])
        countries = _table(tables / "global_energy_mix.json")
    except (OSError, ValueError, KeyError, TypeError):
        return Grid(WORLD_G_PER_KWH, WORLD, "codecarbon's tables cannot be read: the world's average is used")
    if country is None:
        return Grid(world, WORLD)
    known = countries.get(country.upper())
    intensity = known.get("carbon_intensity") if isinstance(known, dict) else None
    if intensity is None:
        return Grid(world, WORLD, f"no CO2 factor for country {country!r}: the world's average is used")
    return Grid(float(intensity), country.upper())


def _table(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table
