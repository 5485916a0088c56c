"""Our own steps under the plugin: really run, timed, stored for comparison.

`pytest tests/benchmarks --benchmark-autosave` stores the times, `--benchmark-compare` holds later
ones against them. Nothing here asserts a time.
"""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize("method", ["full", "lora", "ia3"])
def test_a_small_models_step(peft_profile: Any, benchmark: Any, method: str) -> None:
    cell = {"model": "opt-125m", "method": method, "seq_len": 32, "stack": "script"}
    peft_profile.time(benchmark, rounds=3, **cell)
    assert benchmark.extra_info["peft_profile"]["id"].startswith("opt-125m-")
    assert benchmark.stats.stats.rounds == 3
