from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import grid
from profiler.errors import UsageError
from profiler.spec import RunSpec

METHODS = ("full", "lora", "lora:r=8", "qlora")
methods = st.lists(st.sampled_from(METHODS), min_size=1, max_size=5)
sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(methods, sizes, sizes)
def test_a_grid_is_the_product_of_the_distinct_values_in_order(
    methods: list[str], batches: list[int], lengths: list[int]
) -> None:
    cells = grid.span(
        {"model": ["gpt2"], "method": methods, "batch_size": batches, "seq_len": lengths}
    )
    found = [(cell.method, cell.batch_size, cell.seq_len) for cell in cells]
    expected = [
        (method, batch, length)
        for method in dict.fromkeys(methods)
        for batch in dict.fromkeys(batches)
        for length in dict.fromkeys(lengths)
    ]
    assert found == expected


def test_fields_that_span_no_grid_hold_for_every_cell() -> None:
    cells = grid.span(
        {"model": ["a", "b"], "model_override": ("x=1", "y=2"), "seed": 3, "padded": True}
    )
    assert {cell.model for cell in cells} == {"a", "b"}
    assert all((cell.model_override, cell.seed) == (("x=1", "y=2"), 3) for cell in cells)


def test_override_replaces_a_field_in_every_cell_and_drops_what_becomes_equal() -> None:
    study = [RunSpec(model="gpt2", method=method, batch_size=size) for method in METHODS
             for size in (1, 2)]  # fmt: skip
    cells = grid.override(study, {"batch_size": [4, 8]})
    assert [(cell.method, cell.batch_size) for cell in cells] == [
        (method, size) for method in METHODS for size in (4, 8)
    ]
    assert grid.override(study, {}) == study


@given(st.sampled_from(METHODS), st.integers(1, 9), st.sampled_from(["script", "trainer"]))
def test_labels_tell_cells_apart(method: str, size: int, stack: str) -> None:
    cell = RunSpec(model="gpt2", method=method, batch_size=size, stack=stack)
    changed = [
        cell.replace(model="opt-125m"),
        cell.replace(batch_size=size + 1),
        cell.replace(model_override=("n_layer=2",)),
        cell.replace(padded=True),
        cell.replace(use_cache=False),
    ]
    assert len({grid.label(one) for one in [cell, *changed]}) == 6


CELLS = grid.span(
    {
        "model": ["opt-125m", "gpt2"],
        "method": list(METHODS),
        "batch_size": [1, 4],
    }
)
Test = Callable[[str], bool]
word_tests: st.SearchStrategy[tuple[str, Test]] = st.sampled_from(
    ["opt-125m", "qlora", "FULL", "r=8", "gpt2", "4x1024", '"gpt2 lora"', "nothing"]
).map(lambda word: (word, lambda text: word.strip('"').lower() in text))


def _join(pairs: tuple[tuple[str, Test], tuple[str, Test]], sign: str) -> tuple[str, Test]:
    (one, test), (two, other) = pairs
    if sign == "or":
        return f"({one} or {two})", lambda text: test(text) or other(text)
    return f"({one} {sign} {two})", lambda text: test(text) and other(text)


expressions = st.recursive(
    word_tests,
    lambda inner: st.one_of(
        inner.map(lambda pair: (f"not {pair[0]}", lambda text: not pair[1](text))),
        st.builds(_join, st.tuples(inner, inner), st.sampled_from(["and", "or", ""])),
    ),
    max_leaves=8,
)


@given(expressions)
def test_a_filter_means_what_its_words_say(expression: tuple[str, Test]) -> None:
    text, test = expression
    expected = [cell for cell in CELLS if test(grid.label(cell).lower())]
    assert grid.matching(text, CELLS) == expected


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("lora", 8),
        ("qlora", 4),
        ("LoRA", 8),
        ("r=8", 4),
        ("r", 4),
        ("opt", 8),
        ("125", 0),
        ("'='", 4),
    ],
)
def test_a_word_is_found_whole(word: str, count: int) -> None:
    assert len(grid.matching(word, CELLS)) == count


def test_and_binds_closer_than_or_and_not_closest() -> None:
    loose = grid.matching("full or lora and not qlora", CELLS)
    assert loose == grid.matching("full or (lora and (not qlora))", CELLS)
    assert loose != grid.matching("(full or lora) and not lora", CELLS)


@pytest.mark.parametrize(
    "text",
    ["", "  ", "not", "and lora", "lora and", "lora or", "(lora", "lora)", "()", "or", 'a "b',
     "lora and or full", "not " * 500 + "lora", "(" * 500],
)  # fmt: skip
def test_a_filter_that_cannot_be_read_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="--filter") as caught:
        grid.matching(text, CELLS)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="ab()\"' notrd", max_size=40))
def test_any_text_is_a_filter_or_wrong_usage(text: str) -> None:
    try:
        chosen = grid.matching(text, CELLS)
    except UsageError:
        return
    assert all(cell in CELLS for cell in chosen)
