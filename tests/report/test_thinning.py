"""A page of many cells draws a fair share of them and tells of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.record import Record
from profiler.report import page, render, thinning
from profiler.report.cells import Cell, arrange
from profiler.report.thinning import thin


def cell(number: int, model: str, device: str, method: str) -> Cell:
    record = Record(id=str(number), status="ok", source="simulated", spec={})
    name = f"{method} {number}"
    return Cell(f"c{number}", record, model, device, name, name, method, "batch 1 × 1")


cells = st.lists(
    st.tuples(st.sampled_from("mn"), st.sampled_from("de"), st.sampled_from("xyz")), max_size=40
).map(lambda items: [cell(number, *item) for number, item in enumerate(sorted(items))])


@given(cells, st.integers(4, 50), st.integers(4, 20))
def test_what_is_left_is_in_order_and_within_the_limits(
    given: list[Cell], limit: int, rows: int
) -> None:
    kept = thin(given, limit, rows)
    assert kept == [one for one in given if one in kept]
    assert len(kept) <= limit
    panels = Counter((one.model, one.device) for one in given)
    assert all(count <= rows for count in Counter((o.model, o.device) for o in kept).values())
    if len(given) <= limit and max(panels.values(), default=0) <= rows:
        assert kept == given
    if given:
        assert kept


@given(cells, st.integers(4, 50), st.integers(4, 20))
def test_no_method_has_a_second_run_before_each_has_its_largest(
    given: list[Cell], limit: int, rows: int
) -> None:
    kept = thin(given, limit, rows)
    for model, device in {(one.model, one.device) for one in kept}:
        panel = [one for one in given if (one.model, one.device) == (model, device)]
        counts = Counter(one.method for one in kept if (one.model, one.device) == (model, device))
        methods = {one.method for one in panel}
        if max(counts.values()) > 1:
            assert set(counts) == methods
        for method in counts:
            first = next(one for one in panel if one.method == method)
            assert first in kept


def test_a_thinned_page_keeps_every_cell_in_its_tables(
    study: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = render(study, title="t")
    monkeypatch.setattr(thinning, "DRAWN", 12)
    monkeypatch.setattr(thinning, "DETAILED", 12)
    thinned = render(study, title="t")
    drawn = [one for one in arrange(study) if one.drawable]
    for group in page.breakdown(drawn):
        assert any("12 of 24 cells are drawn" in remark for remark in group.remarks)
    assert thinned.count("data-category") < whole.count("data-category")
    assert thinned.count("<details") < whole.count("<details")
    assert "12 of 24 cells, the largest" in thinned
    for one in drawn:
        peak = f'data-bytes="{one.memory.peak_allocated}"'
        assert peak in thinned
    assert "cells are drawn" not in whole
    assert "the largest of each method" not in whole


def test_models_that_are_not_drawn_are_named(
    study: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thinning, "DRAWN", 4)
    records = [record for record in study if record.status == "ok"]
    others = [
        record.model_copy(update={"spec": {**record.spec, "model": name}})
        for name in ("second", "third")
        for record in records
    ]
    groups = page.breakdown(arrange([*records, *others]))
    assert [group.caption.split(":")[0] for group in groups] == ["opt-6.7b"]
    assert "Only in the tables: second and third." in groups[-1].remarks


@pytest.mark.whole_grid
def test_a_page_of_a_thousand_cells_is_small(
    study: list[Record], charted: Callable[[Record], Record]
) -> None:
    some = [charted(one) for one in study if one.status == "ok"]
    records = [
        one.model_copy(
            update={"id": f"{one.id}-{number}", "spec": {**one.spec, "batch_size": number}}
        )
        for number in range(1, 1 + -(-1000 // len(some)))
        for one in some
    ]
    assert len(render(records[:1000], title="t").encode()) < 5_000_000
