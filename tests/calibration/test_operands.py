"""Operands that no cache holds: taken in turn, and results kept apart."""

from __future__ import annotations

import itertools

import pytest
import torch

from profiler.calibration.operands import Operands, cache_bytes

MEMORY = 1 << 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_comes_again_only_after_all_memory_was_used(dtype: torch.dtype) -> None:
    shape = (64, 128)
    found = Operands(MEMORY).cold(*shape, dtype=dtype)
    count = MEMORY // (64 * 128 * dtype.itemsize)
    places = [one.data_ptr() for one in itertools.islice(found, 2 * count)]
    assert len(set(places[:count])) == count
    assert places[:count] == places[count:]
    again = next(found)
    assert again.shape == shape
    assert again.dtype == dtype


def test_tensors_in_turn_do_not_overlap() -> None:
    found = Operands(MEMORY).cold(1000, dtype=torch.float32)
    places = sorted({one.data_ptr() for one in itertools.islice(found, 300)})
    assert min(b - a for a, b in itertools.pairwise(places)) >= 4000


def test_a_tensor_larger_than_the_memory_is_there_all_the_same() -> None:
    one = next(Operands(1000).cold(1 << 12, dtype=torch.float32))
    assert one.numel() == 1 << 12


def test_a_call_takes_the_first_again_and_the_others_in_turn() -> None:
    operands = Operands(MEMORY)
    seen: list[tuple[int, int]] = []

    def run(first: torch.Tensor, second: torch.Tensor) -> None:
        seen.append((first.data_ptr(), second.data_ptr()))

    first = operands.hot(1 << 14, dtype=torch.float32)
    call = operands.call(run, first, operands.cold(1 << 14, dtype=torch.float32))
    for _ in range(7):
        call()
    assert {one for one, _ in seen} == {first.data_ptr()}
    assert len({other for _, other in seen}) == len(seen) == 8


def test_results_are_kept_so_that_the_next_has_other_memory() -> None:
    operands = Operands(MEMORY)
    places: list[int] = []

    def run(one: torch.Tensor) -> torch.Tensor:
        result = one * 2
        places.append(result.data_ptr())
        return result

    call = operands.call(run, operands.cold(1 << 16, dtype=torch.float32))
    for _ in range(4):
        call()
    assert all(one != other for one, other in itertools.pairwise(places))


def test_the_cache_has_a_size() -> None:
    assert cache_bytes() > 1 << 16
