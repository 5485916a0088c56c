"""Which methods and options leave all layers alike, however many there are."""

from __future__ import annotations

import pytest
from agreement import resolved

from profiler.bench.repetition.independence import layers_are_independent
from profiler.spec import RunSpec


@pytest.mark.parametrize(
    ("method", "independent"),
    [
        ("lora", True),
        ("lora:target_modules=q_proj+v_proj", True),
        ("lora:target_modules=fc1+mlp.up_proj", True),
        ("lora:target_modules=layers.1.self_attn.q_proj", False),
        (r"lora:target_modules=.*\d\.self_attn\.q_proj", False),
        ('lora:rank_pattern={"q_proj":4}', False),
        ("lora:target_modules=q_proj+v_proj,layers_to_transform=[0,1]", False),
        ("last-k:k=2", False),
        ("vera", False),
        ("lora&ia3", False),
    ],
)
def test_only_what_singles_out_no_layer_is_independent(method: str, independent: bool) -> None:
    cell = resolved(RunSpec(model="opt-125m" if "fc1" in method else "llama-3.2-1b", method=method))
    assert layers_are_independent(cell) is independent
