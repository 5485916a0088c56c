"""The LoRA family differs in the variant alone, so that a difference is the variant's own."""

from __future__ import annotations

import functools

import pytest

from profiler import studies
from profiler.resolve import Cell, resolve

#: The others hold the preset's adapter as LoRA configures it.
OWN_RANK = "vera"


@functools.cache
def cells(quick: bool) -> list[Cell]:
    return [resolve(spec) for spec in studies.load("lora_family", quick=quick).cells]


@pytest.mark.parametrize("quick", [False, True])
def test_all_share_model_batch_card_and_targets(quick: bool) -> None:
    for name in ("model", "batch_size", "seq_len", "device", "weights_dtype", "checkpointing"):
        assert len({str(cell.record_spec[name]) for cell in cells(quick)}) == 1
    targets = {str(cell.config and cell.config["target_modules"]) for cell in cells(quick)}
    assert targets == {"all-linear"}


@pytest.mark.parametrize("quick", [False, True])
def test_all_have_lora_s_rank_and_no_dropout(quick: bool) -> None:
    for cell in cells(quick):
        assert cell.config is not None
        dropouts = [value for name, value in cell.config.items() if name.endswith("_dropout")]
        assert dropouts
        assert not any(dropouts)
        if cell.method.preset != OWN_RANK:
            assert cell.config.get("init_r", cell.config["r"]) == 16
            assert cell.config["lora_alpha"] == 32


def test_every_variant_is_run_in_both_precisions() -> None:
    presets: dict[str, list[str]] = {}
    for cell in cells(False):
        presets.setdefault(cell.record_spec["autocast"], []).append(cell.method.preset)
    assert presets["none"] == presets["bfloat16"]
    assert set(presets["none"]) == {
        "lora", "rslora", "lora-fa", "lora-plus", "dora", "adalora", "delta-lora", "vera",
    }  # fmt: skip
