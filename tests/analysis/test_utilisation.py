from __future__ import annotations

import pytest

from profiler.analysis.utilisation import compute_dtype, model_flops_utilisation, on_device
from profiler.hardware import devices
from profiler.record import Flops
from profiler.spec import RunSpec


def counts(**phases: int) -> Flops:
    return Flops(total=sum(phases.values()), phases=phases)


def test_it_is_the_share_of_the_peak_without_what_is_computed_again() -> None:
    plain = counts(forward=100, backward=200, recompute=0, optimizer=0)
    again = counts(forward=100, backward=200, recompute=90, optimizer=0)
    assert model_flops_utilisation(plain, 2.0, 1000.0) == pytest.approx(0.15)
    assert model_flops_utilisation(again, 2.0, 1000.0) == pytest.approx(0.15)


@pytest.mark.parametrize(("seconds", "peak"), [(1.0, None), (0.0, 1.0)])
def test_without_a_peak_or_a_time_there_is_none(seconds: float, peak: float | None) -> None:
    assert model_flops_utilisation(counts(forward=1), seconds, peak) is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"weights_dtype": "float32", "autocast": "none"}, "float32"),
        ({"weights_dtype": "float32", "autocast": "bfloat16"}, "bfloat16"),
        ({"weights_dtype": "bfloat16", "autocast": None}, "bfloat16"),
        (
            {"weights_dtype": "float32", "quantization": "nf4", "compute_dtype": "float16"},
            "float16",
        ),
        ({"weights_dtype": "float32", "compute_dtype": "float16"}, "float32"),
    ],
)
def test_products_are_in_autocasts_dtype_or_the_weights(
    fields: dict[str, str | None], expected: str
) -> None:
    assert compute_dtype(RunSpec(model="opt-125m", **fields)) == expected  # type: ignore[arg-type]


def test_a_cards_peak_is_that_of_the_dtype() -> None:
    """A T4's tensor cores know float16 and no bfloat16."""
    card = devices.device("t4")
    half, bfloat = (
        on_device(counts(forward=10**9), 1.0, RunSpec(model="opt-125m", weights_dtype=dtype), card)
        for dtype in ("float16", "bfloat16")
    )
    assert half is not None
    assert bfloat is not None
    assert bfloat / half == pytest.approx(card.float16_flops / card.float32_flops)
    assert on_device(counts(forward=1), 1.0, RunSpec(model="opt-125m"), None) is None
