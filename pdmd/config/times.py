"""Noise levels as plain numbers: the shift of a grid, and the range that a phase re-noises in."""

from __future__ import annotations

from pdmd.config.sections import Renoise


def shifted(raw: float, shift: float) -> float:
    """The noise level that a shift warps a raw time to: t = k u / (1 + (k - 1) u)."""
    return shift * raw / (1 + (shift - 1) * raw)


def raw_time(time: float, shift: float) -> float:
    """The raw time that a shift warps to some noise level."""
    return time / (shift - (shift - 1) * time)


def renoise_range(law: Renoise, end: float, top: float, margin: float) -> tuple[float, float]:
    """Least and greatest noise level that a phase's samples are carried to.

    Args:
        end: noise level of the phase's samples; top: where its range ends; margin: from end and 1.
    """
    if law.at is not None:
        return law.at, law.at
    return max(end + margin, law.low), min(top, 1 - margin, law.high)


def has_room(law: Renoise, end: float, top: float, margin: float) -> bool:
    """Whether that range lies within the phase's, and is one."""
    low, high = renoise_range(law, end, top, margin)
    if law.at is not None:
        return end + margin <= law.at <= min(top, 1 - margin)
    return end <= low < high <= 1
