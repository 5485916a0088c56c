"""The shipped table: what is published, in which unit, and as which cell."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from profiler.method_choice import choose_method
from profiler.spec import RunSpec
from profiler.validation import cases
from profiler.validation.cases import CASES, Group
from profiler.validation.metrics import METRICS

MIB = 2**20

GROUPS = {group.id: group for group in cases.load()}


def published(group: str, case: str) -> dict[str, float | None]:
    found = GROUPS[group]
    return {
        measure.metric: cases.published(found.case(case), measure)
        for run in found.runs
        for measure in run.measures
    }


def test_there_are_as_many_rows_as_were_published() -> None:
    assert {id: len(group.cases) for id, group in GROUPS.items()} == {
        "peft-metamathqa": 30,
        "t4-qlora": 8,
        "a100-trainer": 2,
        "cpu-steps": 15,
    }
    for group in GROUPS.values():
        assert max(Counter(case.id for case in group.cases).values()) == 1


def test_numbers_are_the_sources_in_base_units() -> None:
    """Spot checks, each read off its source."""
    lora = published("peft-metamathqa", "lora--llama-3.2-3B-rank32")
    assert lora["peak_reserved"] == 22_292_725_760
    assert lora["history.after_step_mean"] == 6_924_458_053
    assert lora["params.trainable"] == 9_175_040
    assert lora["params.adapter_file_bytes"] == 36_715_216
    assert lora["time.step"] == 0.117038
    full = published("peft-metamathqa", "full-finetuning--llama-3.2-3B-lr_0.00001")
    assert full["peak_reserved"] == 38_868_615_168
    assert full["params.total"] == 3_212_749_824
    smol = published("t4-qlora", "smollm2-4x1024-eager")
    assert smol["phases.backward"] == smol["peak_allocated"] == 5297 * MIB
    assert smol["peak_reserved"] == 6932 * MIB
    assert smol["load.after_allocated"] == 1296 * MIB
    assert smol["time.step"] == 6.39
    mistral = published("a100-trainer", "mistral-7b-full")
    assert mistral["peak_allocated"] == 72_434_837_504
    assert mistral["after_step_allocated"] == 43_467_876_352
    assert mistral["device_total"] == 77_256 * MIB
    assert mistral["time.step"] == 5.349538


@pytest.mark.parametrize("group", GROUPS.values(), ids=lambda group: group.id)
def test_every_case_is_a_cell_of_its_own(group: Group) -> None:
    specs = [group.spec_of(case, run) for case in group.cases for run in group.runs]
    assert len(set(specs)) == len(specs)
    for spec in specs:
        choose_method(spec.method)
        assert isinstance(spec, RunSpec)


def test_the_overrides_of_the_comparison_are_in_the_cells() -> None:
    group = GROUPS["peft-metamathqa"]
    by_name = {case.id: group.spec_of(case, group.runs[0]) for case in group.cases}
    others = {
        name: (spec.optimizer, spec.adapter_dtype)
        for name, spec in by_name.items()
        if (spec.optimizer, spec.adapter_dtype) != ("adamw", "float32")
    }
    assert others == {
        "lora--llama-3.2-3B-rank32-lorafa": ("lora-fa", "float32"),
        "osf--llama-3.2-3B-rank128": ("adamw", "bfloat16"),
    }
    full = [name for name, spec in by_name.items() if spec.method == "full"]
    assert full == ["full-finetuning--llama-3.2-3B-lr_0.00001"]
    assert {spec.batch_size for spec in by_name.values()} == {4}


def test_every_config_is_used_and_every_measure_is_of_its_table() -> None:
    group = GROUPS["peft-metamathqa"]
    used = {case.row["method"] for case in group.cases} - {"full"}
    assert used == {f"adapter_configs/{path.name}" for path in CASES.glob("adapter_configs/*")}
    for name in used:
        assert "peft_type" in json.loads((CASES / name).read_text())
    for group in GROUPS.values():
        for run in group.runs:
            for measure in run.measures:
                assert measure.metric in METRICS
                assert all(measure.column in case.row for case in group.cases)


def test_no_number_is_fitted_to_a_case() -> None:
    """What is fitted stands on a run, which all of a group's cases share, with its reason."""
    for group in GROUPS.values():
        for run in group.runs:
            assert all(one.constant_reason for one in run.measures if one.constant)
            if run.scan is not None:
                assert run.scan.reason
                assert run.spec[run.scan.field] is not None
                assert {count for _, _, count in run.scan.points} <= {len(group.cases)}


def test_every_explanation_is_of_a_case_and_a_metric() -> None:
    for group in GROUPS.values():
        metrics = {one.metric for run in group.runs for one in run.measures}
        for text in group.explanations:
            covered = [
                (case.id, name)
                for case in group.cases
                for name in metrics
                if text.covers(case.id, name)
            ]
            assert covered, text.text
            # A pattern that matches everything explains nothing.
            assert len(covered) < len(group.cases) * len(metrics)


def test_quick_is_some_case() -> None:
    chosen = [
        case
        for group in GROUPS.values()
        for case in group.quick_cases
        if group.case(case) and set(group.quick_runs) <= {run.name for run in group.runs}
    ]
    assert len(chosen) == 1
