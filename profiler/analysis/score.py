"""One number for a method's score and its costs: PSCP, in both forms, and what nothing dominates.

PSCP is PEFT-Bench's "soft score penalties" (arXiv 2511.21285): a task score, made smaller by what
it cost. A method is compared with others of one study; the weights say what a cost matters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def pscp_exponential(
    score: float,
    costs: Mapping[str, float],
    largest: Mapping[str, float],
    weights: Mapping[str, float],
) -> float:
    """`score * exp(-alpha*P/Pmax - beta*L/Lmax - gamma*M/Mmax)`.

    Args:
        score: the task score, in any unit.
        costs: trainable parameters, latency and memory, or others; none negative.
        largest: the largest of each cost in the study; a cost of which all are 0 takes nothing off.
        weights: of each cost, 1 where it is not named.
    """
    exponent = 0.0
    for name, cost in costs.items():
        if largest[name] > 0:
            exponent += weights.get(name, 1.0) * cost / largest[name]
    return score * math.exp(-exponent)


def pscp_product(
    score: float,
    costs: Mapping[str, float],
    constants: Mapping[str, float],
    weights: Mapping[str, float],
) -> float:
    """`score * product of (1 + cost/c)^(-beta)`, the paper's own form.

    Args:
        score, costs, weights: as of `pscp_exponential`; there the costs are trainable parameters,
            FLOPs and memory.
        constants: for each cost the one at which it takes `2^-beta` of the score; above 0.
    """
    result = score
    for name, cost in costs.items():
        result *= (1 + cost / constants[name]) ** -weights.get(name, 1.0)
    return result


def front(points: Sequence[Sequence[float]]) -> list[bool]:
    """Which points nothing dominates: no other is at most as large in all coordinates, and smaller
    in one."""
    kept: list[tuple[float, ...]] = []
    for point in sorted(set(map(tuple, points))):  # what dominates a point stands before it
        if not any(all(a <= b for a, b in zip(one, point, strict=True)) for one in kept):
            kept.append(point)
    best = set(kept)
    return [tuple(point) in best for point in points]
