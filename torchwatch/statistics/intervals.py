"""Central intervals of the normal distribution."""

from __future__ import annotations

from statistics import NormalDist


def central(level: float) -> float:
    """Half the width of the interval around the mean that holds a share ``level``, in standard deviations.

    Args:
        level: above 0 and below 1; 0.95 gives 1.96.

    Raises:
        ValueError: a level outside that.
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must lie within 0 … 1, not {level!r}")
    return NormalDist().inv_cdf((1 + level) / 2)
