from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import NotBuiltError, UsageError
from profiler.spec import RunSpec

FIELDS = {item.name: item for item in dataclasses.fields(RunSpec)}
CHOICES = {name: item.metadata for name, item in FIELDS.items() if "values" in item.metadata}

specs = st.builds(
    RunSpec,
    model=st.text(min_size=1),
    model_override=st.lists(st.text()).map(tuple),
    method=st.text(),
    optimizer=st.none() | st.text(),
    batch_size=st.integers(min_value=1),
    seq_len=st.integers(min_value=1),
    padded=st.booleans(),
    use_cache=st.none() | st.booleans(),
    grad_clip=st.integers(0, 5) | st.floats(0, 1e9),
    **{
        name: st.sampled_from(metadata["built"])
        | (st.none() if FIELDS[name].default is None else st.nothing())
        for name, metadata in CHOICES.items()
    },
)


def _spec(fields: dict[str, Any]) -> RunSpec:
    return RunSpec(**{"model": "m", **fields})


@given(specs)
def test_a_spec_survives_json(spec: RunSpec) -> None:
    assert RunSpec.from_dict(json.loads(spec.to_json())) == spec
    assert set(spec.to_dict()) == set(FIELDS)


@given(specs)
def test_equal_specs_are_one_key(spec: RunSpec) -> None:
    assert len({spec, spec.replace()}) == 1
    assert spec.replace(seed=spec.seed + 1) != spec


@pytest.mark.parametrize("name", CHOICES)
def test_a_value_that_is_none_of_a_fields_is_refused_with_the_known_ones(name: str) -> None:
    flag = "--" + name.replace("_", "-")
    nearly = CHOICES[name]["values"][0] + "x"
    with pytest.raises(UsageError, match=f"{flag}.*{CHOICES[name]['values'][0]}"):
        _spec({name: nearly})


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, item in CHOICES.items() for value in item["values"]
     if value not in item["built"]],
)  # fmt: skip
def test_a_value_that_is_not_built_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(NotBuiltError, match=value):
        _spec({name: value})


WRONG: list[dict[str, Any]] = [
    {"model": ""},
    {"model": None},
    {"model": 3},
    {"model_override": "a=1"},
    {"model_override": ["a=1"]},
    {"model_override": (1,)},
    {"method": None},
    {"batch_size": 0},
    {"batch_size": -1},
    {"batch_size": 1.0},
    {"batch_size": True},
    {"batch_size": "1"},
    {"seq_len": 0},
    {"grad_accumulation": 0},
    {"steps": 0},
    {"seed": -1},
    {"padded": 1},
    {"use_cache": "true"},
    {"grad_clip": -0.5},
    {"grad_clip": math.nan},
    {"grad_clip": math.inf},
    {"pad_fraction": 1.0},
    {"pad_fraction": -0.1},
    {"lengths": [1]},
    {"parallelism": "ddp"},
]


@pytest.mark.parametrize("fields", WRONG, ids=str)
def test_a_wrong_value_is_one_line_that_names_its_field(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        _spec(fields)
    (name,) = fields
    assert "--" + name.replace("_", "-") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_replaced_field_is_checked_too() -> None:
    with pytest.raises(UsageError, match="--batch-size"):
        RunSpec(model="m").replace(batch_size=0)


def test_an_unknown_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="batch_size"):
        RunSpec.from_dict({"model": "m", "bacth_size": 2})
    with pytest.raises(UsageError, match="model"):
        RunSpec.from_dict({})


def test_the_fields_that_span_a_grid_are_the_contracts() -> None:
    spanning = {name for name, item in FIELDS.items() if item.metadata.get("grid")}
    assert spanning == {
        "model", "method", "quantization", "stack", "weights_dtype", "batch_size", "seq_len",
        "optimizer", "checkpointing", "attention", "device",
    }  # fmt: skip


def test_every_field_has_a_help_text() -> None:
    assert all(item.metadata["help"] for item in FIELDS.values())
