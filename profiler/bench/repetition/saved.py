"""The names and sizes of a deep adapter's file, by those of a shallow one's."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from profiler.bench.repetition.errors import NotPeriodicError
from profiler.bench.repetition.stream import Labels

#: The tensors of one file, by name.
Saved = dict[str, torch.Tensor]


def saved_at(saved: Saved, labels: Labels, more: range, times: int) -> Saved:
    """A file with the tensors of certain layers so many times.

    Args:
        more: these layers; those behind them count on from the last.
    """
    found: Saved = {}
    for name, tensor in saved.items():
        (front, rest), layer = labels.of(name)
        if layer is None or layer < more.start:
            found[name] = tensor
        elif layer in more:
            for repetition in range(times):
                found[f"{front}{layer + repetition * len(more)}{rest}"] = tensor
        else:
            found[f"{front}{layer + (times - 1) * len(more)}{rest}"] = tensor
    return found


def check_saved(depths: Sequence[list[Saved]], labels: Labels, more: range) -> None:
    """The files of three depths must follow from those of the second.

    Raises:
        NotPeriodicError: they do not.
    """
    for times, files in enumerate(depths):
        expected = [saved_at(one, labels, more, times) for one in depths[1]]
        if [_sizes(one) for one in files] != [_sizes(one) for one in expected]:
            raise NotPeriodicError("what is saved does not follow from the depth")


def _sizes(saved: Saved) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in saved.items()}
