"""Published figures beside ours: matched by configuration, compared by arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from profiler.record import Record
from profiler.report.cells import arrange
from profiler.report.published import PublishedRow, PublishedTable, compare, load

GB = 10**9
RecordFactory = Callable[..., Record]


@pytest.fixture
def opt() -> PublishedTable:
    (table,) = [table for table in load() if table.model == "opt-6.7b"]
    return table


def test_the_source_s_words_and_numbers_agree(opt: PublishedTable) -> None:
    assert len(opt.rows) == 5
    for row in opt.rows:
        assert row.memory == f"about {row.memory_gb:g} GB"
        assert row.trainable == f"{row.trainable_percent:g} %"
        assert row.note


def test_each_row_matches_its_own_configuration(opt: PublishedTable, study: list[Record]) -> None:
    found = {
        row.method: {record.label for record in study if row.matches(record.spec)}
        for row in opt.rows
    }
    # llama's lora:r=64 matches the configuration too; the model is the table's.
    assert found == {
        "full": {"full"},
        "LoRA r8 (q_proj, v_proj)": {"lora:r=8,target_modules=q_proj+v_proj"},
        "LoRA r64": {"lora:r=64"},
        "QLoRA r64": {"qlora"},
        "P-tuning": {"p-tuning"},
    }


def test_ours_stands_below_the_published_row(opt: PublishedTable, record: RecordFactory) -> None:
    ours = record("qlora", "l40s", batch_size=2, seq_len=64)
    (comparison,) = compare(arrange([ours]), [opt])
    assert comparison.table.source == "simulated"
    (group,) = [group for group in comparison.table.groups if group.heading == "QLoRA r64"]
    theirs, mine = group.rows
    assert theirs[1].text == "about 6 GB"
    assert theirs[7].text == "0.08 %"
    assert ours.memory.peak_reserved is not None
    assert ours.params is not None
    assert mine[0].text == "qlora, batch 2 × 64, on l40s"
    assert mine[1].exact == ours.memory.peak_reserved
    assert mine[5].exact == ours.memory.peak_reserved
    assert mine[6].exact == ours.memory.peak_allocated
    for field, size in zip(mine[2:4], (GB, 2**30), strict=True):
        difference = ours.memory.peak_reserved / size - 6
        assert field.text.startswith(f"−{-difference:.1f} (")
    assert (mine[8].exact, mine[9].exact) == (ours.params.trainable, ours.params.total)
    share = 100 * ours.params.trainable / ours.params.total
    assert float(mine[7].text.removesuffix(" %")) == pytest.approx(share, rel=5e-4)
    rows = [row for group in comparison.table.groups for row in group.rows]
    assert sum("no run" in row[0].text for row in rows) == 4


@pytest.mark.parametrize(
    ("reserved", "text"),
    [
        (6 * GB, "✓ 10⁹ bytes"),
        (6 * 2**30, "✓ 2³⁰ bytes"),
        (int(6.2 * GB), "✓ either way"),
        (5 * GB, "✗ no"),
        (7 * 2**30, "✗ no"),
        (None, "–"),
    ],
)
def test_a_row_is_reproduced_if_a_reading_of_gb_is_near(
    opt: PublishedTable, record: RecordFactory, reserved: int | None, text: str
) -> None:
    ours = record("qlora")
    ours.memory.peak_reserved = reserved
    (comparison,) = compare(arrange([ours]), [opt])
    (group,) = [group for group in comparison.table.groups if group.heading == "QLoRA r64"]
    assert group.rows[1][4].text == text


def test_a_cpu_s_runs_stand_only_beside_what_they_match(
    opt: PublishedTable, cpu: RecordFactory
) -> None:
    (comparison,) = compare(arrange([cpu("cpu", "qlora")]), [opt])
    (group,) = comparison.table.groups
    assert group.heading == "QLoRA r64"
    assert group.rows[1][0].text.endswith("on cpu, allocated")
    assert group.rows[1][4].text == "–"


def test_every_row_is_as_wide_as_its_table(opt: PublishedTable, record: RecordFactory) -> None:
    (comparison,) = compare(arrange([record("qlora")]), [opt])
    for group in comparison.table.groups:
        assert {len(row) for row in group.rows} == {len(comparison.table.columns)}


def test_the_notes_arithmetic_holds(opt: PublishedTable) -> None:
    """The numbers of the notes follow from the architecture, not from a run."""
    hidden, layers, words, positions = 4096, 32, 50272, 2050
    linear = layers * (4 * hidden**2 + 2 * hidden * 4 * hidden)
    embeddings = (words + positions) * hidden
    others = layers * (4 * hidden + 4 * hidden + hidden + 4 * hidden) + 2 * hidden  # biases, norms
    weights = linear + embeddings + others
    notes = {row.method: row.note for row in opt.rows}
    full = notes["full"]
    assert f"{8 * weights / GB:.1f} · 10⁹" in full
    assert f"{8 * weights / 2**30:.1f} · 2³⁰" in full
    assert f"{2 * weights / 2**30:.1f} · 2³⁰" in notes["P-tuning"]
    assert f"{2 * weights / GB:.1f} · 10⁹" in notes["LoRA r8 (q_proj, v_proj)"]

    def lora(rank: int, projections: int) -> int:
        return layers * projections * 2 * rank * hidden

    assert f"{lora(8, 2):,} parameters" in notes["LoRA r8 (q_proj, v_proj)"]
    apart = [lora(64, projections) - lora(8, 2) for projections in (2, 4)]
    r64 = notes["LoRA r64"]
    assert f"{apart[0] / 1e6:.0f} million parameters, {16 * apart[0] / GB:.1f} · 10⁹" in r64
    assert f"by {apart[1] / 1e6:.0f} million and {16 * apart[1] / GB:.1f}" in r64
    assert f"{lora(64, 4):,} parameters" in notes["QLoRA r64"]
    # Four bits a weight, one byte a constant for every 64 of them; embeddings and the rest in fp32.
    unpacked = linear // 2 + linear // 64 + 4 * (embeddings + others)
    assert f"{unpacked / GB:.1f} · 10⁹" in notes["QLoRA r64"]


def test_cards_with_the_same_figures_share_a_row(
    opt: PublishedTable, record: RecordFactory
) -> None:
    cells = arrange([record("qlora", card) for card in ("rtx-4090", "l40s", "a100-80gb")])
    (comparison,) = compare(cells, [opt])
    (group,) = [group for group in comparison.table.groups if group.heading == "QLoRA r64"]
    assert [row[0].text for row in group.rows[1:]] == [
        "qlora, batch 1 × 128, on rtx-4090 and l40s",
        "qlora, batch 1 × 128, on a100-80gb",
    ]


def test_nothing_is_shown_for_other_models_or_methods(
    opt: PublishedTable, record: RecordFactory
) -> None:
    assert compare(arrange([record("qlora", model="opt-1.3b")]), [opt]) == []
    assert compare(arrange([record("ia3")]), [opt]) == []


@pytest.mark.parametrize(
    ("wanted", "value", "matches"),
    [
        (8, 8, True),
        (8, 16, False),
        (["a", "b"], ["b", "a"], True),
        (["a", "b"], ["a"], False),
        (["nf4", "nf4-dq"], "nf4", True),
        (["nf4", "nf4-dq"], "none", False),
        (False, None, True),
        (False, True, False),
    ],
)
def test_criteria(wanted: object, value: object, matches: bool) -> None:
    row = PublishedRow(method="m", memory="1 GB", match={"method.config.x": wanted})
    assert row.matches({"method": {"config": {"x": value}}}) is matches


def test_a_missing_path_does_not_match() -> None:
    row = PublishedRow(method="m", memory="1 GB", match={"method.config.r": 8})
    assert not row.matches({"method": "lora"})


def test_every_shipped_table_can_be_read() -> None:
    import profiler.report

    folder = Path(profiler.report.__file__).parent / "published"
    assert len(load()) == len(list(folder.glob("*.toml"))) > 0


def test_it_says_which_batch_and_length_reproduce_the_rows(record: RecordFactory) -> None:
    cells = arrange(
        record(method, "a100-80gb", seq_len=seq_len)
        for method in ("lora:r=8,target_modules=q_proj+v_proj", "p-tuning")
        for seq_len in (64, 4096)
    )
    (found,) = [one for one in compare(cells, load()) if one.published.model == "opt-6.7b"]
    rows = "LoRA r8 (q_proj, v_proj); not P-tuning."
    assert f"Batch 1 × 64 reproduces 1 of 2 rows: {rows}" in found.said
    assert "Batch 1 × 4096 reproduces 0 of 2 rows; not LoRA r8" in found.said
