"""Values that fake tensors carry along: through views and writes, and guessed where unknown."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from tiny import CONFIGS
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensor

from profiler.subject.fake_build import FakeBuild


@pytest.fixture
def building() -> FakeBuild:
    return FakeBuild(cuda=False)


def known(building: FakeBuild, tensor: torch.Tensor) -> list[float] | None:
    value = building.shadows.value(tensor)
    return None if value is None else [float(one) for one in value.flatten()]


def test_literals_and_drawn_indices_are_known(building: FakeBuild) -> None:
    with building:
        literal = torch.tensor([3, 1, 2])
        drawn = torch.randperm(5)
        filled = torch.empty(3)
    assert isinstance(literal, FakeTensor)
    assert known(building, literal) == [3, 1, 2]
    assert sorted(known(building, drawn) or []) == [0, 1, 2, 3, 4]
    assert known(building, filled) is None


def test_a_write_through_a_view_is_seen_in_the_whole(building: FakeBuild) -> None:
    with building:
        whole = torch.zeros(4)
        whole[1:3] = torch.tensor([5.0, 6.0])
        doubled = whole * 2
    assert known(building, whole) == [0, 5, 6, 0]
    assert known(building, doubled) == [0, 10, 12, 0]


def test_what_is_written_to_from_the_unknown_is_unknown(building: FakeBuild) -> None:
    with building:
        one, other = torch.zeros(3), torch.ones(3)
        one.add_(torch.empty(3))
        other.normal_()
    assert known(building, one) is None
    assert known(building, other) is None


def test_shapes_follow_from_known_values(building: FakeBuild) -> None:
    with building:
        values = torch.tensor([0, 7, 0, 9])
        assert values.nonzero().shape == (2, 1)
        assert torch.bincount(torch.tensor([1, 1, 4])).tolist() == [0, 2, 0, 0, 1]
        unknown_rows = torch.empty(4, 3)[values > 0]
        assert unknown_rows.shape == (2, 3)
    assert building.shadows.unknown == 0


def test_guesses_are_counted(building: FakeBuild) -> None:
    with building:
        unknown = torch.empty(4)
        assert unknown.sum().item() == 0
        assert bool((unknown > 1).any())
        assert unknown[unknown > 1].shape == (4,)
        assert not unknown.isnan().any()  # numbers worth profiling are finite
        assert building.shadows.unknown == 3
        with pytest.raises(DynamicOutputShapeException):
            unknown.nonzero()


def test_a_copy_stays_in_its_mode(building: FakeBuild) -> None:
    with building:
        layer = torch.nn.Linear(4, 4)
        copied = copy.deepcopy(layer)
    assert isinstance(copied.weight, FakeTensor)
    assert copied.weight.fake_mode is building.mode


def test_an_adapter_is_moved_and_cast_as_on_a_device(building: FakeBuild) -> None:
    """peft leaves what is on meta as it was made; on fake tensors it does what it does on real."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    base = {name: value for name, value in CONFIGS["llama"].items() if name != "model_type"}
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")

    def dtypes(model: torch.nn.Module) -> dict[str, tuple[torch.dtype, bool]]:
        adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=False)
        return {name: (one.dtype, one.requires_grad) for name, one in adapted.named_parameters()}

    real = AutoModelForCausalLM.from_config(LlamaConfig(**base), dtype=torch.bfloat16)
    with torch.device("meta"):
        meta = AutoModelForCausalLM.from_config(LlamaConfig(**base), dtype=torch.bfloat16)
    building.fill(meta)
    with building:
        simulated = dtypes(meta)
    assert simulated == dtypes(real)
    assert any("lora_A" in name and kind[0] is torch.bfloat16 for name, kind in simulated.items())
