"""Settings of PyTorch's CUDA caching allocator, parsed from `PYTORCH_ALLOC_CONF`.

Every rule is PyTorch 2.13's: `c10/core/AllocatorConfig.{h,cpp}` for the settings all accelerators
share, `c10/cuda/CUDAAllocatorConfig.{h,cpp}` for CUDA's own. Parsing is stricter where PyTorch
reads past a typing error (it does not look at what stands between a key and its value).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from profiler.errors import NotBuiltError, UsageError, unknown

T = TypeVar("T")

MIB = 1 << 20

#: `size_t`'s maximum stands for "no limit" there (AllocatorConfig.h, `max_split_size_`).
UNLIMITED = (1 << 64) - 1

#: AllocatorConfig.h, `large_segment_size_`: what requests between 1 and 10 MiB are cut from.
LARGE_SEGMENT = 20 * MIB

#: AllocatorConfig.cpp, `kRoundUpPowerOfTwoIntervals`: one per power of two from 1 MiB to 64 GiB.
ROUNDUP_INTERVALS = 16

#: Settings of pinned host memory, locking and graph capture: they move no byte on the device
#: outside a graph capture. The last group are AllocatorConfig.cpp's, the others CUDA's own.
_NO_DEVICE_BYTES: dict[str, type[bool | int]] = {
    "release_lock_on_cudamalloc": bool,
    "release_lock_on_hipmalloc": bool,
    "graph_capture_record_stream_reuse": bool,
    "pinned_use_cuda_host_register": bool,
    "pinned_use_hip_host_register": bool,
    "pinned_free_catch_all": bool,
    "pinned_num_register_threads": int,
    "pinned_reserve_segment_size_mb": int,
    "pinned_use_background_threads": bool,
    "pinned_max_round_threshold_mb": int,
    "pinned_max_cached_size_mb": int,
}

_KEYS = (
    "backend",
    "expandable_segments",
    "garbage_collection_threshold",
    "large_segment_size_mb",
    "max_non_split_rounding_mb",
    "max_split_size_mb",
    "per_process_memory_fraction",
    "roundup_power2_divisions",
    "throw_on_cudamalloc_oom",
    *_NO_DEVICE_BYTES,
)

#: One `key:value`, the value a single token or a list in square brackets, then a comma or the end.
_ITEM = re.compile(r"([^,:\[\]]+):(\[[^\[\]]*\]|[^,:\[\]]+)(?:,|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocConf:
    """The settings that decide how many bytes the allocator takes. Sizes are in bytes."""

    expandable_segments: bool = False
    """Grow one segment per pool page by page instead of taking new segments."""
    large_segment_size: int = LARGE_SEGMENT
    """Segment for requests between 1 and 10 MiB; page of an expandable large segment."""
    max_split_size: int = UNLIMITED
    """Blocks of at least this size are never split, nor given to smaller requests."""
    max_non_split_rounding: int = LARGE_SEGMENT
    """How much larger than the request an unsplittable block may be."""
    roundup_power2_divisions: tuple[int, ...] = (0,) * ROUNDUP_INTERVALS
    """Steps between two powers of two that a request is rounded up to, for each power of two
    from 1 MiB (which holds for smaller requests too) to 32 GiB (and above); 0 and 1 are off."""
    garbage_collection_threshold: float = 0.0
    """Share of the allowed memory above which cached segments are given back before a new one is
    taken; 0 is off. As in PyTorch it does nothing unless `per_process_memory_fraction` is set."""
    per_process_memory_fraction: float = 1.0
    """Share of the device's memory that may be reserved; 1 is no limit of the allocator's own."""

    @classmethod
    def parse(cls, text: str) -> AllocConf:
        """The settings of a `PYTORCH_ALLOC_CONF` string (`key:value,key:[a:b,c:d]`).

        An empty string gives the defaults. Settings that cannot change the bytes on the device
        are checked and dropped.

        Raises:
            UsageError: an unknown key, or a value PyTorch would not take.
            NotBuiltError: a setting that PyTorch knows and this replay does not model.
        """
        items = _items(text)
        # AllocatorConfig.cpp, `parseArgs`: the segment size is read first, since it is the
        # default of one limit and the least value of another.
        large = items.get("large_segment_size_mb")
        segment = LARGE_SEGMENT if large is None else _mib("large_segment_size_mb", large, least=11)
        least = segment // MIB
        rounding = items.get("max_non_split_rounding_mb")
        split = items.get("max_split_size_mb")
        return cls(
            expandable_segments=_read(items, "expandable_segments", _boolean, False),
            large_segment_size=segment,
            max_split_size=(
                UNLIMITED if split is None else _mib("max_split_size_mb", split, least=least)
            ),
            max_non_split_rounding=(
                segment
                if rounding is None
                else _mib("max_non_split_rounding_mb", rounding, least=least)
            ),
            roundup_power2_divisions=_read(
                items, "roundup_power2_divisions", _divisions, (0,) * ROUNDUP_INTERVALS
            ),
            garbage_collection_threshold=_read(
                items, "garbage_collection_threshold", _threshold, 0.0
            ),
            per_process_memory_fraction=_read(items, "per_process_memory_fraction", _fraction, 1.0),
        )


def _items(text: str) -> dict[str, str]:
    """`text` cut into its settings; a key given twice holds its last value, as in PyTorch."""
    plain = "".join(text.split())  # ConfigTokenizer ignores white space, wherever it stands
    items: dict[str, str] = {}
    position = 0
    while position < len(plain):
        match = _ITEM.match(plain, position)
        if match is None:
            raise UsageError(
                f"cannot read {plain[position:]!r} in the allocator settings; "
                "write key:value,key:value"
            )
        key, value = match[1], match[2]
        if key not in _KEYS:
            raise unknown("allocator setting", key, _KEYS)
        if key in _NO_DEVICE_BYTES:
            check = _boolean if _NO_DEVICE_BYTES[key] is bool else _integer
            check(key, value)
        elif key == "backend":
            _backend(value)
        elif key == "throw_on_cudamalloc_oom" and _boolean(key, value):
            raise NotBuiltError(
                "throw_on_cudamalloc_oom:True is not modelled (it fails before cached segments "
                "are given back); leave it out or write False"
            )
        items[key] = value
        position = match.end()
    return items


def _read(items: dict[str, str], key: str, parse: Callable[[str, str], T], default: T) -> T:
    return parse(key, items[key]) if key in items else default


def _boolean(key: str, value: str) -> bool:
    """ConfigTokenizer's `toBool`: capitalised, nothing else."""
    if value not in ("True", "False"):
        raise UsageError(f"{key} must be True or False, not {value!r}")
    return value == "True"


def _integer(key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise UsageError(f"{key} must be a whole number, not {value!r}")
    return int(value)


def _mib(key: str, value: str, *, least: int) -> int:
    """A size given in MiB, in bytes. `least`: the smallest that is allowed, in MiB."""
    size = _integer(key, value)
    if size < least:
        raise UsageError(f"{key} must be at least {least}, not {value}")
    return min(size * MIB, UNLIMITED)


def _number(key: str, value: str, wanted: str, *, within: Callable[[float], bool]) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not within(number):
        raise UsageError(f"{key} must be {wanted}, not {value!r}")
    return number


def _threshold(key: str, value: str) -> float:
    return _number(key, value, "between 0 and 1, both excluded", within=lambda x: 0 < x < 1)


def _fraction(key: str, value: str) -> float:
    return _number(key, value, "from 0 to 1", within=lambda x: 0 <= x <= 1)


def _backend(value: str) -> None:
    if value in ("cudaMallocAsync", "hipMallocAsync"):
        raise NotBuiltError(f"backend:{value} is not modelled; use backend:native")
    if value != "native":
        raise UsageError(f"backend must be native, not {value!r}")


def _power_of_two(key: str, value: str) -> int:
    number = _integer(key, value)
    if number.bit_count() != 1:
        raise UsageError(f"{key} takes powers of two, not {value}")
    return number


def _divisions(key: str, value: str) -> tuple[int, ...]:
    """AllocatorConfig.cpp, `parseRoundUpPower2Divisions`: one number, or `[MiB:number,>:number]`.

    In the list form a bound stands for the sizes from it to its double; the first also for all
    below it, `>` for all above the last, and those that are not named stay unrounded.
    """
    if not value.startswith("["):
        return (_power_of_two(key, value),) * ROUNDUP_INTERVALS
    divisions = [0] * ROUNDUP_INTERVALS
    last: int | None = None
    for part in value[1:-1].split(","):
        bound, colon, text = part.partition(":")
        if not colon:
            raise UsageError(f"{key} must be a number or [MiB:number,...,>:number], not {value!r}")
        number = 0 if text == "0" else _power_of_two(key, text)
        if bound == ">":
            start = (0 if last is None else last) + 1
            divisions[start:] = [number] * (ROUNDUP_INTERVALS - start)
            continue
        index = min(_power_of_two(key, bound).bit_length() - 1, ROUNDUP_INTERVALS - 1)
        if last is None:
            divisions[:index] = [number] * index
        divisions[index] = number
        last = index
    return tuple(divisions)
