"""Randomness that depends on nothing but its counter: the draw of one token is a hash of where it stands."""

from __future__ import annotations

import secrets

_MASK = 2**64 - 1


def random_seed() -> int:
    """A seed nobody chose, 64 bits."""
    return secrets.randbits(64)


def uniform(seed: int, choice: int, position: int, stream: int = 0) -> float:
    """A number in [0, 1) from (seed, choice, position, stream): 53 bits of chained SplitMix64."""
    state = _mix(seed & _MASK)
    for word in (choice, position, stream):
        state = _mix(state ^ (word & _MASK))
    return (state >> 11) * 2.0**-53


def _mix(x: int) -> int:
    """One output of SplitMix64 for state x (Steele, Lea, Flood 2014)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
