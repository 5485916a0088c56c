"""Each cell's sentence against its baseline follows from the two records."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from profiler.record import Kernel, Record, Time
from profiler.report import against_words
from profiler.report.against_words import lead, remarks, sentence
from profiler.report.baseline import against
from profiler.report.cells import Cell, arrange

MIB = 2**20
GIB = 2**30
RecordFactory = Callable[..., Record]


@pytest.fixture
def two(record: RecordFactory) -> tuple[Record, Record]:
    """A baseline and a variant with the same figures."""
    base, variant = record("lora:r=64"), record("lora:r=64")
    variant.spec["method"] = {**variant.spec["method"], "label": "variant", "preset": "variant"}
    variant.id = "variant"
    return base, variant


def said(base: Record, variant: Record) -> str:
    (found,) = against(arrange([base, variant]), "lora")
    (cell,) = found.others
    return sentence(cell, found)


def hold(record: Record, category: str, nbytes: int) -> None:
    """Change what a record holds at its peak."""
    memory = record.memory
    memory.at_peak[category] += nbytes
    assert memory.peak_allocated is not None
    memory.peak_allocated += nbytes


def test_the_same_figures_are_said_to_be_the_same(two: tuple[Record, Record]) -> None:
    text = said(*two)
    assert "byte for byte" in text
    assert "as many parameters" in text
    assert "as many FLOPs" in text
    assert "takes as long" in text


@pytest.mark.parametrize(("nbytes", "words"), [(-2 * GIB, "2.00 GiB less"), (GIB, "1.00 GiB more")])
def test_the_category_that_changed_is_named(
    two: tuple[Record, Record], nbytes: int, words: str
) -> None:
    base, variant = two
    base.memory.at_peak["activations"] += 4 * GIB
    variant.memory.at_peak["activations"] += 4 * GIB
    hold(variant, "activations", nbytes)
    text = said(base, variant)
    assert f"holds {words} at the peak than lora:r=64 (" in text
    assert f": {words} in activations;" in text
    assert "gradients" not in text


def test_a_trifle_is_said_in_bytes(two: tuple[Record, Record]) -> None:
    base, variant = two
    hold(variant, "temporaries", 512)
    assert "but for 512 bytes more" in said(base, variant)


def test_the_largest_change_comes_first_and_many_are_counted(two: tuple[Record, Record]) -> None:
    base, variant = two
    for place, name in enumerate(
        ("activations", "gradients", "inputs", "kv_cache", "temporaries", "workspaces"), 1
    ):
        hold(variant, name, place * GIB)
    text = said(base, variant)
    assert ": 6.00 GiB more in workspaces, 5.00 GiB more in temporaries, " in text
    assert "and 2 smaller differences" in text


def row(activations: int) -> dict[str, int]:
    return {"parameters": 0, "gradients": 0, "optimizer_state": 0, "activations": activations}


def test_the_modules_that_changed_most_are_named_with_their_adapters(
    two: tuple[Record, Record],
) -> None:
    """What lies in an adapted layer is the layer's, whichever of its modules holds it."""
    base, variant = two
    layers = [f"base_model.model.model.layers.{number}.mlp" for number in range(2)]
    for one, part, held in ((base, "", 10 * MIB), (variant, ".base_layer", 400 * MIB)):
        one.memory.modules = {}
        for path in layers:
            one.memory.modules[f"{path}.fc1.base_layer"] = row(0)
            one.memory.modules[f"{path}.fc1{part}"] = row(held)
            one.memory.modules[f"{path}.fc2"] = row(50 * MIB)
    hold(variant, "activations", 2 * 390 * MIB)
    assert "(above all layers.*.mlp.fc1, +0.76 GiB)" in said(base, variant)


def test_modules_that_changed_alike_are_named_together(two: tuple[Record, Record]) -> None:
    base, variant = two
    variant.memory.modules = {name: row(GIB) for name in ("k", "q", "v", "w")}
    hold(variant, "activations", 4 * GIB)
    assert "(above all k, q, v and 1 more, +1.00 GiB each)" in said(base, variant)


def test_what_explains_little_is_no_cause(two: tuple[Record, Record]) -> None:
    base, variant = two
    variant.memory.modules = {"k": row(100 * MIB), "": row(2 * GIB)}
    hold(variant, "activations", 2 * GIB + 100 * MIB)
    assert "above all" not in said(base, variant)


def test_parameters_and_flops_are_counted(two: tuple[Record, Record]) -> None:
    base, variant = two
    assert base.params
    assert variant.params
    assert base.flops
    assert variant.flops
    for share, words in ((0.5, "50 % fewer"), (1.25, "25 % more"), (3, "3.00 times as many")):
        variant.params.trainable = int(base.params.trainable * share)
        variant.flops.total = int(base.flops.total * share)
        text = said(base, variant)
        assert f"trains {words} parameters" in text
        assert f"needs {words} FLOPs" in text
    variant.params.trainable = base.params.trainable // 64
    assert "trains 1.562 % as many parameters" in said(base, variant)


def timed(source: str, step: float, spread: float | None = None, **seconds: float) -> Time:
    return Time.model_validate(
        {
            "source": source,
            "step": step,
            "phases": {"forward": step},
            "tokens_per_second": 1.0,
            "spread": spread and {"p20": step - spread / 2, "p80": step + spread / 2},
            "kernels": [
                Kernel(name=op, op=op, phase="forward", count=1, seconds=took, flops=0, bytes=0)
                for op, took in seconds.items()
            ],
        }
    )


def test_the_op_that_takes_longer_is_named(two: tuple[Record, Record]) -> None:
    base, variant = two
    base.time = timed("predicted", 1.0, mm=0.9, add=0.1)
    variant.time = timed("predicted", 1.5, mm=0.7, add=0.1, mul=0.7)
    text = said(base, variant)
    assert "takes 50 % longer (predicted, above all mul in the forward, +700.00 ms)" in text


def test_a_measured_difference_must_exceed_the_spread(two: tuple[Record, Record]) -> None:
    base, variant = two
    base.time, variant.time = timed("measured", 1.0, 0.2), timed("measured", 1.1, 0.2)
    assert "takes as long (measured, within the spread of the steps)" in said(base, variant)
    (found,) = against(arrange([base, variant]), "lora")
    assert lead(found).endswith("variant the longest (within the spread of the steps).")
    variant.time = timed("measured", 1.5, 0.2)
    assert "takes 50 % longer (measured)" in said(base, variant)


def test_a_measured_time_is_not_compared_with_a_predicted_one(two: tuple[Record, Record]) -> None:
    base, variant = two
    base.time, variant.time = timed("measured", 1.0), timed("predicted", 2.0)
    assert "takes" not in said(base, variant)


def test_peaks_in_different_phases_are_said(two: tuple[Record, Record]) -> None:
    base, variant = two
    hold(variant, "activations", 40 * GIB)
    variant.memory.phases["forward"] = variant.memory.peak_allocated or 0
    assert "its peak is in the forward, that of lora:r=64 in the backward" in said(base, variant)


def test_more_or_less_is_the_sign_of_the_difference(study: list[Record]) -> None:
    comparisons = against(arrange(study))
    assert comparisons
    for found in comparisons:
        for cell in found.others:
            total = peak(cell) - peak(found.base)
            text = sentence(cell, found)
            assert (" more at the peak than " in text, " less at the peak than " in text) == (
                total > 0,
                total < 0,
            )


def peak(cell: Cell) -> int:
    assert cell.memory.peak_allocated is not None
    return cell.memory.peak_allocated


def test_the_lead_names_the_extremes(study: list[Record]) -> None:
    for found in against(arrange(study)):
        cells = [found.base, *found.others]
        text = lead(found)
        least, most = (choose(cells, key=peak) for choose in (min, max))
        assert text.startswith(f"At the peak {found.name(least)} holds the least (")
        assert f", {found.name(most)} the most (" in text
        assert "The step of " in text
        assert "the shortest, predicted (" in text


def test_equal_cells_are_as_the_baseline(two: tuple[Record, Record]) -> None:
    (found,) = against(arrange(list(two)), "lora")
    assert lead(found).count("the baseline") == 4


def test_a_page_has_no_more_sentences_than_can_be_read(
    study: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    comparisons = against(arrange(study))
    everything = sum(len(found.others) for found in comparisons)
    assert remarks(comparisons)[1] == max(0, everything - against_words.SENTENCES)
    monkeypatch.setattr(against_words, "SENTENCES", 10)
    groups, unsaid = remarks(comparisons)
    assert sum(len(group.sentences) for group in groups) == 10
    assert unsaid == everything - 10
