"""Which cells are drawn, or listed in detail, where a page has more than a person looks at."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.report.cells import Cell, grouped

#: Cells that all the figures of one kind draw together.
DRAWN = 64
#: Cells in the tables that take one apart; "Method by method" has all.
TABLED = 250
#: Cells whose details (blocks at the peak, ops) are listed.
DETAILED = 60
#: Cells that an interactive chart lets choose from, and on a page of more than MANY cells.
CHOICES = 24
CHOICES_OF_MANY = 8
MANY = 100
#: Rows of one panel, and how few a panel may have left when there are many panels.
ROWS = 60
FEWEST = 4


def thin(cells: Sequence[Cell], limit: int, rows: int = ROWS) -> list[Cell]:
    """The cells to show: all of them, or a fair share of each panel (model, source and device).

    Of a panel's methods each has its largest run shown before any has a second one. With more
    panels than the limit has room for, the later ones are left out. The order stays.

    Args:
        cells: in the page's order, which has the larger first.
        limit: cells in all.
        rows: cells of one panel.
    """
    panels = grouped(cells, lambda cell: (cell.model, cell.source, cell.device))
    if not panels or (len(cells) <= limit and max(len(panel) for panel in panels.values()) <= rows):
        return list(cells)
    share = min(rows, max(FEWEST, limit // len(panels)))
    kept: set[str] = set()
    for panel in list(panels.values())[: max(1, limit // share)]:
        seen: dict[str, int] = {}
        ranked = []
        for place, cell in enumerate(panel):
            seen[cell.method] = seen.get(cell.method, 0) + 1
            ranked.append((seen[cell.method], place, cell.key))
        kept.update(key for _, _, key in sorted(ranked)[:share])
    return [cell for cell in cells if cell.key in kept]


def choosable(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that an interactive chart of these lets choose from."""
    count = CHOICES_OF_MANY if len(cells) > MANY else CHOICES
    return thin(cells, count)[:count]
