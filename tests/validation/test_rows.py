"""A measured record becomes the simulation that stands for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profiler.errors import UsageError
from profiler.hardware import devices
from profiler.method_choice import choose_method
from profiler.record import Memory, Record
from profiler.spec import RunSpec
from profiler.subject import methods
from profiler.subject.models import load
from profiler.validation import rows


def record(method: str = "lora", *, card: str = "NVIDIA L40S", **fields: Any) -> Record:
    """A measured record of a method on a shipped model."""
    spec = RunSpec(**{"model": "opt-125m", "method": method, "device": "cuda", **fields})
    choice = choose_method(method)
    return Record(
        id="opt-125m-" + "0" * 12,
        status="ok",
        source="measured",
        spec={
            **spec.to_dict(),
            "model_config": load(spec.model, spec.model_override).config,
            "method": {
                "label": choice.label,
                "preset": choice.preset,
                "options": choice.options,
                "config": None,
            },
        },
        memory=Memory(peak_allocated=2**30, peak_reserved=2**31, device_total=2**31),
        environment={"device": card, "torch": "2.13.0"},
    )


@pytest.mark.parametrize("name", methods.names())
def test_every_preset_comes_back_with_its_options(name: str, tmp_path: Path) -> None:
    spec = rows.spec_of(record(name), tmp_path)
    again, first = choose_method(spec.method), choose_method(name)
    assert (again.preset, again.options) == (first.preset, first.options)


@pytest.mark.parametrize(
    "method",
    [
        "lora:r=4,target_modules=q_proj+v_proj,lora_dropout=0.25,use_rslora=true",
        "lora:target_modules=.*(q|v)_proj",
        'lora:rank_pattern={"q_proj": 4},bias="all"',
        "lora:r=4&ia3",
    ],
)
def test_options_come_back(method: str, tmp_path: Path) -> None:
    again = choose_method(rows.spec_of(record(method), tmp_path).method)
    assert again.options == choose_method(method).options


def test_an_adapter_config_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text('{"peft_type": "LORA", "r": 3, "target_modules": ["q_proj"]}')
    spec = rows.spec_of(record(str(file)), tmp_path / "rows")
    assert choose_method(spec.method).options == choose_method(str(file)).options


def test_a_changed_model_is_kept_as_its_config(tmp_path: Path) -> None:
    plain = rows.spec_of(record(), tmp_path)
    assert plain.model == "opt-125m"
    wide = rows.spec_of(record(model_override=("vocab_size=1000",)), tmp_path)
    assert wide.model_override == ()
    assert load(wide.model).config == load("opt-125m", ("vocab_size=1000",)).config


@pytest.mark.parametrize(
    ("reported", "key"),
    [
        ("NVIDIA L40S", "l40s"),
        ("Tesla T4", "t4"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA H200", "h200"),
    ],
)
def test_a_card_is_found_by_its_drivers_name(reported: str, key: str, tmp_path: Path) -> None:
    assert rows.spec_of(record(card=reported), tmp_path).device == key


def test_a_card_may_be_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--device"):
        rows.spec_of(record(card="Graphics Device"), tmp_path)
    for key in devices.names():
        assert rows.spec_of(record(card="Graphics Device"), tmp_path, device=key).device == key
    with pytest.raises(UsageError, match="unknown device"):
        rows.spec_of(record(), tmp_path, device="nonesuch")


def test_what_a_row_holds_is_wanted(tmp_path: Path) -> None:
    first, second = rows.entries([record(), record()], tmp_path)
    assert first.case != second.case
    wanted = {one.metric: one for one in first.wanted}
    assert wanted["peak_reserved"].measured == 2**31
    assert wanted["peak_reserved"].bound == rows.BOUND
    assert wanted["device_total"].bound is None
    assert "params.total" not in wanted  # the record has none
