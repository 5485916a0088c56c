"""The figure of measured peaks beside simulated ones."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.report import palette
from profiler.report.canvas import BAR, Drawing, Note, finish, panel, style, write_rows
from profiler.report.pairs import Pair
from profiler.report.units import GIB, exact_bytes, fine_percent, gib, gib_unit

#: Before the difference of a pair that is marked.
MARK = "▲"


def peaks(pairs: Sequence[Pair], *, limit: int | None = None) -> Drawing:
    """Two bars for each pair: the measured peak filled, the simulated one below it, dashed.

    Args:
        pairs: of one model and one machine, with both peaks.
        limit: bytes at the axis' end, to make panels comparable; None takes the pairs' own.
    """
    cells = [pair.measured for pair in pairs]
    notes: dict[str, Note] = {}
    values = [_value(pair) for pair in pairs]
    with style():
        figure, axes = panel(len(pairs))
        for source, role, place in (
            ("measured", palette.MEASURED, -1),
            ("simulated", palette.SIMULATED, 1),
        ):
            sizes = [_peak(pair, source) for pair in pairs]
            bars = axes.barh(
                [row + place * BAR / 4 for row in range(len(pairs))],
                [nbytes / GIB for nbytes in sizes],
                BAR / 2 - 0.03,
                label=source,
                color=role.light if source == "measured" else palette.PAGE.light,
                edgecolor=role.light,
                linewidth=1.0,
                linestyle="-" if source == "measured" else (0, (3, 2)),
                clip_on=False,
            )
            for pair, bar, nbytes in zip(pairs, bars, sizes, strict=True):
                gid = f"{pair.measured.key}-{source}"
                bar.set_gid(gid)
                notes[gid] = Note(
                    f"{pair.measured.name}: {source} {gib(nbytes)} GiB ({exact_bytes(nbytes)})",
                    {"cell": pair.measured.key, "source": source, "bytes": str(nbytes)},
                )
        finish(axes, len(pairs), (limit or extent(pairs)) / GIB)
        write_rows(axes, cells, values, notes)
    what = "; ".join(
        f"{pair.measured.short}: {gib_unit(_peak(pair, 'measured'), 2)} measured, "
        f"{gib_unit(_peak(pair, 'simulated'), 2)} simulated, {value}"
        for pair, (value, _) in zip(pairs, values, strict=True)
    )
    return Drawing(
        figure,
        notes,
        f"Paired bars: peak allocated, measured on {cells[0].device} and simulated as "
        f"{pairs[0].simulated.device}, {cells[0].model}. {what}.",
    )


def extent(pairs: Sequence[Pair]) -> int:
    """The longest bar in bytes."""
    return max(
        [1, *(_peak(pair, source) for pair in pairs for source in ("measured", "simulated"))]
    )


def _peak(pair: Pair, source: str) -> int:
    cell = pair.measured if source == "measured" else pair.simulated
    return cell.memory.peak_allocated or 0


def _value(pair: Pair) -> tuple[str, palette.Role]:
    """The difference beside a pair."""
    if pair.peak.verdict == "equal":
        return "equal", palette.TEXT
    share = pair.peak.share
    text = "differs" if share is None else fine_percent(share)
    return (f"{MARK} {text}", palette.BAD) if pair.peak.verdict == "apart" else (text, palette.TEXT)
