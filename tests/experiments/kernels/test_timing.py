"""The timing's code, with a stand-in for the GPU: that both sides run, and where numbers go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import triton.testing

from experiments.kernels import timing
from experiments.kernels.traffic import Shape


def test_both_sides_of_every_shape_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    results: list[torch.Tensor] = []

    def bench(call: Callable[[], Any], quantiles: Sequence[float]) -> list[float]:
        results.append(call())
        return [len(results) + quantile for quantile in quantiles]

    monkeypatch.setattr(triton.testing, "do_bench", bench)
    monkeypatch.setattr(timing, "SHAPES", (Shape("q_proj", 3, 70, 64),))
    monkeypatch.setattr(timing, "_random", lambda *shape: torch.randn(*shape, dtype=torch.bfloat16))
    decoded, adapted = timing.time_all()
    assert decoded.fused == (1.5, 1.2, 1.8)
    assert adapted.separate == (4.5, 4.2, 4.8)
    for fused, separate in zip(results[::2], results[1::2], strict=True):
        assert fused.shape == separate.shape == (3, 70)
        torch.testing.assert_close(fused, separate, rtol=0.1, atol=0.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_is_timed() -> None:
    assert all(min(one.fused + one.separate) > 0 for one in timing.time_all(quick=True))
