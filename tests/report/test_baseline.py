"""Which cell the others are compared with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from profiler.errors import UsageError
from profiler.record import Record
from profiler.report.baseline import against, is_of, options, otherwise
from profiler.report.cells import arrange

RecordFactory = Callable[..., Record]


def named(records: list[Record], baseline: str = "") -> dict[str, list[str]]:
    """Labels of the others by their baseline's label."""
    return {
        found.base.record.label: sorted(cell.record.label for cell in found.others)
        for found in against(arrange(records), baseline)
    }


def test_the_smallest_lora_is_the_default(record: RecordFactory) -> None:
    small = "lora:r=8,target_modules=q_proj+v_proj"
    records = [record(method) for method in ("full", "lora:r=64", small, "ia3")]
    assert named(records) == {small: ["full", "ia3", "lora:r=64"]}


@pytest.mark.parametrize("baseline", ["full", "qlora", "lora:r=64"])
def test_a_label_or_a_preset_can_be_named(record: RecordFactory, baseline: str) -> None:
    records = [record(method) for method in ("full", "lora:r=64", "qlora", "ia3")]
    others = {one.label for one in records} - {baseline}
    assert named(records, baseline) == {baseline: sorted(others)}


def test_a_baseline_that_is_not_there_is_one_line(record: RecordFactory) -> None:
    with pytest.raises(UsageError, match="unknown baseline 'lorra'") as raised:
        named([record("full"), record("lora:r=64")], "lorra")
    assert "\n" not in str(raised.value)


def test_without_the_default_s_method_nothing_is_compared(record: RecordFactory) -> None:
    assert named([record("full"), record("ia3")]) == {}
    assert named([record("lora:r=64")]) == {}


def test_only_the_same_model_device_batch_and_source_are_compared(
    record: RecordFactory, cpu: RecordFactory
) -> None:
    lora = record("lora:r=64")
    for other in (
        record("ia3", model="opt-1.3b"),
        record("ia3", "l40s"),
        record("ia3", seq_len=64),
        cpu("sim:cpu", "ia3"),
    ):
        assert named([lora, other]) == {}
    assert named([lora, record("ia3")]) == {"lora:r=64": ["ia3"]}


def test_cells_without_a_result_are_not_compared(record: RecordFactory) -> None:
    failed = record("ia3", status="failed", error="boom", memory={}, params=None)
    assert named([record("lora:r=64"), failed]) == {}
    assert not is_of(failed, "ia3")
    assert is_of(record("ia3"), "ia3")


def with_optimizer(record: Record, optimizer: str) -> Record:
    record.spec["optimizer"] = optimizer
    record.id += optimizer
    return record


def test_the_baseline_of_the_nearest_settings_is_taken(record: RecordFactory) -> None:
    records = [
        with_optimizer(record(method), optimizer)
        for method in ("lora:r=64", "ia3")
        for optimizer in ("adamw", "sgd")
    ]
    found = against(arrange(records))
    assert len(found) == 2
    for one in found:
        (other,) = one.others
        assert otherwise(other, one.base) == {}
    lion = with_optimizer(record("full"), "lion")
    (alone,) = against(arrange([records[0], lion]))
    assert otherwise(alone.others[0], alone.base) == {"optimizer": ("lion", "adamw")}


def test_options_are_compared_between_adapters_of_one_kind(record: RecordFactory) -> None:
    lora, ours, other = record("lora:r=64"), record("lora:r=64"), record("ia3")
    ours.spec["method"] = {
        **ours.spec["method"],
        "label": "mine",
        "config": {"peft_type": "LORA", "r": 64, "use_dora": True, "target_modules": ["fc1"]},
    }
    cells = {cell.record.label: cell for cell in arrange([lora, ours, other])}
    assert options(cells["mine"], cells["lora:r=64"]) == {"use_dora": "true"}
    assert options(cells["ia3"], cells["lora:r=64"]) == {}
