"""FLOPs of one optimizer step, by phase and by module. A multiply-add is two.

What is counted is stated where ops get their FLOPs (`profiler.bench.flop_formulas`): contractions,
attention by its whole square, transforms and decompositions. `recompute` is what checkpointing
computes again; what a kernel makes again for itself (attention's scores, a tiled loss) belongs to
its own phase.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from profiler.record import Flops
from profiler.trace import Op, Trace

PHASES = ("forward", "backward", "recompute", "optimizer")


def analyse(trace: Trace) -> Flops:
    """The FLOPs of the first measured step."""
    return of_ops((op, 1) for op in trace.ops if op.step == 1)


def of_ops(ops: Iterable[tuple[Op, int]]) -> Flops:
    """The FLOPs of ops and of how many there are of each; what checkpointing computes again stands
    apart. Modules and phases without any are left out of `modules`."""
    phases = dict.fromkeys(PHASES, 0)
    modules: dict[str, dict[str, int]] = {}
    for op, count in ops:
        if op.flops:
            phase = "recompute" if op.recompute else op.phase
            phases[phase] += op.flops * count
            row = modules.setdefault(op.module, {})
            row[phase] = row.get(phase, 0) + op.flops * count
    return Flops(total=sum(phases.values()), phases=phases, modules=modules)


#: Words of the names of ops that multiply matrices, transform or decompose them.
_WORK = re.compile(
    r"(?:^|[._])(?:\w*?mm|\w*?mv|v?dot|addr|ger|matmul\w*|gem[mv]|\w*?linear|einsum|cdist"
    r"|\w*?conv(?:olution)?\d?d?|fft|\w*?attention|attn|rnn|lstm|gru|linalg|(?:sp)?solve|svd|qr"
    r"|eig\w*|lu|p?inv(?:erse)?|cholesky|or[gm]qr)(?=_|$)"
)

#: Ops with such a name that do no such work.
_NO_WORK = frozenset(
    {
        "aten._cudnn_rnn_flatten_weight",
        "aten._linalg_check_errors",
        "aten._thnn_fused_gru_cell",
        "aten._thnn_fused_gru_cell_backward",
        "aten._thnn_fused_lstm_cell",
        "aten._thnn_fused_lstm_cell_backward_impl",
        "aten.linalg_cross",
        "aten.linalg_vector_norm",
        "aten.lu_unpack",
        "aten.slice_inverse",
        "bitsandbytes.int8_mm_dequant",
    }
)


def uncounted(ops: Iterable[Op]) -> list[str]:
    """Names of ops that look like work that is counted, and have no FLOPs at all."""
    without = {op.name for op in ops if not op.flops and op.nbytes}
    without -= {op.name for op in ops if op.flops}
    return sorted(name for name in without - _NO_WORK if _WORK.search(name))


def approximations(trace: Trace) -> list[str]:
    """What a record says of them: a sentence, or nothing."""
    names = uncounted([op for op in trace.ops if op.step == 1])
    return [f"The FLOPs of {', '.join(names)} are not counted."] if names else []
