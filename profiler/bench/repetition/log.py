"""What a trace does not keep of its ops, and what the writing of further ones needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Touches:
    """What one op reads and writes on the device: (storage, bytes) each.

    A storage is given by its block, one that is no block of the allocator by a negative number,
    one that nobody saw made by None. `numels` are the elements of each tensor of an op on lists
    (`_foreach_*`), and `lists` is how many lists its kernel takes.
    """

    reads: Sequence[tuple[int | None, int]] = ()
    writes: Sequence[tuple[int | None, int]] = ()
    numels: Sequence[int] = ()
    lists: int = 0


@dataclass
class OpLog:
    """Written by the tracker beside a trace.

    Attributes:
        touches: of each op of the trace.
        blocks, events: how many there were when the steps began.
        categories: of these blocks, then.
    """

    touches: list[Touches] = field(default_factory=list)
    blocks: int = 0
    events: int = 0
    categories: list[str] = field(default_factory=list)
