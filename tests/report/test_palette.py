"""Colours are told apart with every kind of sight and read on both themes."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from profiler.report import palette
from profiler.trace import CATEGORIES

Array = npt.NDArray[np.float64]

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
#: The categories that are large in practice.
LARGE = (
    "base_parameters",
    "quantization_state",
    "gradients",
    "activation_gradients",
    "optimizer_state",
    "activations",
    "logits_and_loss",
    "temporaries",
)


def linear(colour: str) -> Array:
    """Linear RGB of `#rrggbb`, shape (3,)."""
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(rgb: Array) -> Array:
    """OKLab of linear RGB (Ottosson, 2020), shape (3,)."""
    lms = np.cbrt(
        np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        )
        @ rgb.clip(0, 1)
    )
    result: Array = (
        np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        )
        @ lms
    )
    return result


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio."""
    light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def distance(one: str, other: str, sight: str) -> float:
    """Distance in OKLab, times 100, as somebody with that sight sees it."""
    seen = [oklab(SIGHT[sight] @ linear(colour)) for colour in (one, other)]
    return 100 * float(np.linalg.norm(seen[0] - seen[1]))


def test_every_category_has_one_colour_and_a_label() -> None:
    assert tuple(palette.CATEGORY_COLOURS) == CATEGORIES
    assert tuple(palette.CATEGORY_LABELS) == CATEGORIES
    names = [role.name for role in palette.roles()]
    values = [role.light for role in palette.roles()]
    # The SVG's colours are found again by their value.
    assert len(set(names)) == len(names)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("sight", SIGHT)
def test_categories_are_told_apart(sight: str) -> None:
    for one, other in itertools.combinations(CATEGORIES, 2):
        least = 10 if one in LARGE and other in LARGE else 6.5
        colours = palette.CATEGORY_COLOURS[one], palette.CATEGORY_COLOURS[other]
        assert distance(*colours, sight) > least, (one, other)


@pytest.mark.parametrize("sight", SIGHT)
def test_phases_of_a_step_are_told_apart(sight: str) -> None:
    for one, other in itertools.combinations(palette.PHASE_COLOURS[:3], 2):
        assert distance(one, other, sight) > 15


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast_aa_and_outlines_have_three_to_one(theme: str) -> None:
    text = ("text", "muted", "link", "bad", "good", "simulated", "measured")
    values = {role.name: getattr(role, theme) for role in palette.ROLES}
    for ground in ("page", "raised"):
        for name in text:
            assert contrast(values[name], values[ground]) >= 4.5, (name, ground)
        for name in ("edge", "capacity"):
            assert contrast(values[name], values[ground]) >= 3, (name, ground)


def test_an_unknown_category_has_a_colour() -> None:
    assert palette.category_role("later").light == palette.CATEGORY_COLOURS["temporaries"]
    assert palette.category_label("later_one") == "later one"
