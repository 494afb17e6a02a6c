"""Probabilities beyond a value, of the distributions that noise of unknown size brings in."""

from __future__ import annotations

import math

_TINY = 1e-300
_ITERATIONS = 500


def t_tail(t: float, degrees: float) -> float:
    """P(T > t) of Student's t distribution: T² is F-distributed with 1 and ``degrees`` degrees of freedom.

    Source: "Student", "The Probable Error of a Mean", Biometrika 6 (1908).
    """
    beyond = f_tail(t * t, 1, degrees) / 2
    return beyond if t > 0 else 1 - beyond


def f_tail(f: float, d1: float, d2: float) -> float:
    """P(F > f) of the F distribution with d1 and d2 degrees of freedom (DLMF 8.17.(i))."""
    return _incomplete_beta(d2 / (d2 + d1 * f), d2 / 2, d1 / 2) if f > 0 else 1.0


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there the fraction converges fast only for the complement
        return 1 - _incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / a * _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 ⁄ (1 + d₁ ⁄ (1 + d₂ ⁄ (1 + …))), with the modified Lentz algorithm (DLMF 3.10.(iii))."""
    value = front = 1.0
    back = 0.0
    for i in range(_ITERATIONS):
        m = i // 2
        if i == 0:
            term = 1.0
        elif i % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        back = 1 / (1 + term * back or _TINY)
        front = (1 + term / front) or _TINY
        value *= back * front
        if i > 1 and abs(1 - back * front) < 1e-15:
            break
    return value - 1
