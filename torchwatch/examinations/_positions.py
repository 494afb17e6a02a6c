"""Places of sensors on a plane: as given, or those of an MNE montage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from torchwatch.errors import UsageError
from torchwatch.examinations.examination import NotApplicable

Floats = np.ndarray[Any, np.dtype[np.float64]]


def positions_of(given: Any, channels: Sequence[str]) -> tuple[Floats, str]:
    """Places of the channels (C, 2), NaN for those that have none, and where they come from.

    Args:
        given: (C, 2) in any form, a mapping from names to places, or the name of an MNE montage.
        channels: names of the C channels.

    Raises:
        NotApplicable: a montage without `mne` installed, or one that knows none of the names.
        UsageError: another shape, or a montage that does not exist.
    """
    if isinstance(given, str):
        return _of_montage(given, channels), f"MNE montage {given}"
    if isinstance(given, Mapping):
        return _by_name({str(k): v for k, v in given.items()}, channels), "places by name"
    places = np.asarray(given.tolist() if hasattr(given, "tolist") else given, dtype=np.float64)
    if places.shape != (len(channels), 2):
        raise UsageError(
            f"positions must be ({len(channels)}, 2), a place on a plane for each channel, not {places.shape}"
        )
    return places, "places as given"


def _by_name(places: Mapping[str, Any], channels: Sequence[str]) -> Floats:
    known = {name.casefold(): place for name, place in places.items()}
    found = np.full((len(channels), 2), np.nan)
    for row, name in enumerate(channels):
        if name.casefold() in known:
            found[row] = np.asarray(known[name.casefold()], dtype=np.float64)
    if not np.isfinite(found).all(1).any():
        raise NotApplicable(
            f"no place is known for any channel ({', '.join(channels[:5])} …): pass channel_names= that the "
            "positions use"
        )
    return found


def _of_montage(name: str, channels: Sequence[str]) -> Floats:
    try:
        from mne.channels import make_standard_montage
    except ImportError:
        raise NotApplicable(
            f"the montage {name!r} is MNE's: install mne (`pip install mne`), or pass positions as (C, 2)"
        ) from None
    try:
        montage = make_standard_montage(name)
    except (ValueError, OSError) as error:
        raise UsageError(f"MNE has no montage {name!r}: {str(error).partition(chr(10))[0]}") from error
    places = montage.get_positions()["ch_pos"]
    return _by_name({k: flattened(np.asarray(v)) for k, v in places.items()}, channels)


def flattened(place: Floats) -> Floats:
    """A place on a head (x right, y front, z up; any unit) on the plane, 1 at the equator.

    Azimuthal equidistant: the angle from the top becomes the distance from the centre.

    Args:
        place: (3,).
    """
    x, y, z = (float(v) for v in place)
    across = np.hypot(x, y)
    angle = np.arctan2(across, z) / (np.pi / 2)
    return np.array([0.0, 0.0]) if across == 0 else np.array([x, y]) / across * angle
