"""PYTORCH_ALLOC_CONF: what is read, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.analysis.alloc_conf import AllocConf
from profiler.errors import NotBuiltError, UsageError

MIB = 1 << 20


def test_empty_text_gives_the_defaults() -> None:
    assert AllocConf.parse("") == AllocConf.parse("  ") == AllocConf()


def test_settings_are_read_in_bytes_and_white_space_does_not_count() -> None:
    conf = AllocConf.parse(
        " expandable_segments : True, max_split_size_mb:128,\nbackend:native,"
        "garbage_collection_threshold:0.8,per_process_memory_fraction:.5,"
    )
    assert conf == AllocConf(
        expandable_segments=True,
        max_split_size=128 * MIB,
        garbage_collection_threshold=0.8,
        per_process_memory_fraction=0.5,
    )


def test_the_last_of_two_values_holds() -> None:
    assert AllocConf.parse("max_split_size_mb:32,max_split_size_mb:64").max_split_size == 64 * MIB


@given(st.integers(11, 4096))
def test_the_large_segment_bounds_the_other_sizes_in_any_order(size: int) -> None:
    for text in (
        f"large_segment_size_mb:{size},max_split_size_mb:{size}",
        f"max_split_size_mb:{size},large_segment_size_mb:{size}",
    ):
        conf = AllocConf.parse(text)
        assert conf.large_segment_size == conf.max_split_size == size * MIB
        assert conf.max_non_split_rounding == size * MIB
    with pytest.raises(UsageError, match=f"at least {size}"):
        AllocConf.parse(f"max_split_size_mb:{size - 1},large_segment_size_mb:{size}")


def test_one_division_holds_for_all_sizes() -> None:
    assert set(AllocConf.parse("roundup_power2_divisions:8").roundup_power2_divisions) == {8}


def test_divisions_by_size() -> None:
    text = "roundup_power2_divisions:[256:1,1024:4,>:8]"
    divisions = AllocConf.parse(text).roundup_power2_divisions
    assert divisions[:9] == (1,) * 9, "the first bound holds for all below it, 2^8 MiB included"
    assert divisions[9] == 0, "what is not named is not rounded"
    assert divisions[10] == 4
    assert divisions[11:] == (8,) * 5


def test_settings_that_move_no_device_byte_are_taken_and_dropped() -> None:
    text = "pinned_use_background_threads:True,pinned_num_register_threads:8"
    assert AllocConf.parse(text) == AllocConf()
    with pytest.raises(UsageError, match="pinned_use_background_threads"):
        AllocConf.parse("pinned_use_background_threads:yes")


@pytest.mark.parametrize("text", ["backend:cudaMallocAsync", "throw_on_cudamalloc_oom:True"])
def test_what_is_not_modelled_is_refused_by_name(text: str) -> None:
    with pytest.raises(NotBuiltError, match=text):
        AllocConf.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("expandable_segment:True", "did you mean expandable_segments"),
        ("expandable_segments:true", "True or False"),
        ("expandable_segments", "key:value"),
        ("max_split_size_mb=64", "key:value"),
        ("max_split_size_mb:", "key:value"),
        ("max_split_size_mb:1.5", "whole number"),
        ("max_split_size_mb:19", "at least 20"),
        ("large_segment_size_mb:10", "at least 11"),
        ("roundup_power2_divisions:3", "powers of two"),
        ("roundup_power2_divisions:[3:2]", "powers of two"),
        ("roundup_power2_divisions:[4]", "must be a number or"),
        ("roundup_power2_divisions:[4:2", "key:value"),
        ("garbage_collection_threshold:1", "between 0 and 1"),
        ("garbage_collection_threshold:nan", "between 0 and 1"),
        ("per_process_memory_fraction:2", "from 0 to 1"),
        ("backend:other", "native"),
    ],
)
def test_bad_settings_are_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        AllocConf.parse(text)
    assert "\n" not in str(caught.value)
