"""Cells: named apart, ordered by what they hold and not by how they came."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from profiler.record import Record
from profiler.report.cells import arrange, categories_of
from profiler.trace import CATEGORIES

RecordFactory = Callable[..., Record]


def test_the_order_given_does_not_matter(study: list[Record]) -> None:
    shuffled = list(study)
    random.Random(1).shuffle(shuffled)
    names = [(cell.key, cell.name, cell.record.id) for cell in arrange(study)]
    assert [(cell.key, cell.name, cell.record.id) for cell in arrange(shuffled)] == names


def test_every_card_lists_the_methods_in_one_order(study: list[Record]) -> None:
    cells = [cell for cell in arrange(study) if cell.model == "opt-6.7b"]
    orders = {
        device: [cell.name for cell in cells if cell.device == device]
        for device in ("rtx-4090", "l40s", "a100-80gb")
    }
    assert orders["rtx-4090"] == orders["l40s"] == orders["a100-80gb"]
    peaks = [cell.peak for cell in cells if cell.device == "l40s"]
    assert peaks == sorted(peaks, key=lambda peak: -(peak or 0))
    capacities = [cell.record.fits.capacity for cell in cells if cell.record.fits]
    assert capacities == sorted(capacities)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([{"batch_size": 1}, {"batch_size": 4}], ["batch 1 × 128", "batch 4 × 128"]),
        ([{"seq_len": 128}, {"seq_len": 512}], ["× 128", "× 512"]),
    ],
)
def test_runs_of_one_method_say_what_differs(
    record: RecordFactory, changes: list[dict[str, int]], words: list[str]
) -> None:
    names = [cell.name for cell in arrange(record(**change) for change in changes)]
    assert all(any(word in name for name in names) for word in words)


def test_runs_that_differ_in_a_field_of_the_spec_name_it(record: RecordFactory) -> None:
    plain, other = record(), record()
    other.spec["checkpointing"] = "reentrant"
    plain.spec["checkpointing"] = "none"
    names = {cell.name for cell in arrange([plain, other])}
    assert names == {"lora:r=64, checkpointing none", "lora:r=64, checkpointing reentrant"}


def test_versions_of_a_library_tell_equal_specs_apart(record: RecordFactory) -> None:
    old, new = record(), record()
    old.environment["peft"] = "0.13.2"
    names = {cell.name for cell in arrange([old, new])}
    assert names == {"lora:r=64, peft 0.13.2", "lora:r=64, peft 0.21.2"}


def test_names_are_unique_among_the_cells_of_a_card(record: RecordFactory) -> None:
    cells = arrange([record(), record(), record(batch_size=2), record(source="measured")])
    counts = Counter((cell.model, cell.device, cell.source, cell.name) for cell in cells)
    assert set(counts.values()) == {1}
    assert len({cell.key for cell in cells}) == 4


def labelled(record: RecordFactory, *labels: str) -> dict[str, str]:
    """Short names by label."""
    records = []
    for label in labels:
        records.append(record(id=label))
        records[-1].spec["method"]["label"] = label
    return {cell.name: cell.short for cell in arrange(records)}


def test_short_names_leave_out_what_runs_of_a_preset_share(record: RecordFactory) -> None:
    shared = "alpha=16,target_modules=q_proj+v_proj"
    labels = [f"lora:r=8,{shared}", f"lora:r=64,{shared}", f"qlora:{shared}", "ia3:a=1"]
    assert list(labelled(record, *labels).items()) == [
        (labels[3], "ia3:a=1"),
        (labels[1], "lora:r=64"),
        (labels[0], "lora:r=8"),
        (labels[2], "qlora"),
    ]


def test_short_names_stay_apart(record: RecordFactory) -> None:
    for labels in (
        ("lora", "lora:r=8"),
        ("lora:r=8,r=8", "lora:r=8"),
        ('lora:target_modules=["a","b"]', 'lora:target_modules=["b","a"]'),
    ):
        short = labelled(record, *labels)
        assert len(set(short.values())) == len(short) == 2


def test_overrides_are_part_of_the_model(record: RecordFactory) -> None:
    changed = record()
    changed.spec["model_override"] = ["vocab_size=32003"]
    assert [cell.model for cell in arrange([changed])] == ["opt-6.7b (vocab_size=32003)"]


def test_a_record_without_a_resolved_method_has_a_name(record: RecordFactory) -> None:
    failed = record(spec={"method": "lora:r=8"}, status="failed", error="no such model")
    (cell,) = arrange([failed])
    assert cell.name == "lora:r=8"


def test_categories_stand_in_stacking_order(record: RecordFactory) -> None:
    cells = arrange([record("qlora"), record("full")])
    names = categories_of(cells)
    assert names == [name for name in CATEGORIES if name in names]
    assert "kv_cache" not in names  # nobody holds any
