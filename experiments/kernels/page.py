"""The page of the study: a pure function of `kernels.json`. Needs neither torch nor Triton."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from profiler.files import write_page
from profiler.report import palette, svg, units
from profiler.report.cells import distinct
from profiler.report.page import FigureGroup, Panel, Section
from profiler.report.tables import Column, Field, Rows, Table
from profiler.report.text import listing

from . import figures, occupancy, traffic
from .occupancy import CAPABILITIES
from .results import Build, Results

TITLE = "Two Triton kernels of adapter training"
MIB = 2**20
#: The adapter's rank in the table of bytes.
RANK = 16

SECTIONS = (
    Section("answer", "Answer", "The answer"),
    Section("resources", "Resources", "What they take of a GPU"),
    Section("checked", "Checked", "Checked against the references"),
    Section("time", "Time", "Time"),
    Section("bytes", "Bytes", "What one pass saves"),
    Section("rules", "Rules", "How occupancy is computed"),
    Section("origin", "Provenance", "Provenance"),
)

KERNELS = {
    "nf4_matmul": "NF4: decode and multiply",
    "lora_linear": "LoRA: base and adapter in one pass",
}


def build(results: Results, output: Path) -> Path:
    """Write `output/index.html` and return its path.

    Raises:
        StoreError: the folder cannot be written.
    """
    return write_page(render(results), output)


def render(results: Results) -> str:
    """The page's HTML. It loads nothing from anywhere; the same results give the same bytes."""
    from profiler.report.templating import environment

    page = environment(__package__, "profiler.report").get_template("page.html")
    return page.render(context(results))


def context(results: Results) -> dict[str, Any]:
    """What the template is given."""
    return {
        "title": TITLE,
        "command": results.command,
        "style_light": palette.style_variables("light"),
        "style_dark": palette.style_variables("dark"),
        "swatch": lambda category: palette.category_role(category).css,
        "sections": SECTIONS,
        "facts": facts(results),
        "sentences": sentences(results),
        "drawn": drawn(results),
        "resources": [resources(name, results) for name in kernels(results)],
        "checks": checks(results),
        "device": results.device,
        "times": times(results) if results.timings else None,
        "bytes": [nf4_bytes(), lora_bytes()],
        "rules": rules(),
        "units": occupancy,
        "environment": sorted(results.environment.items()),
        "download": download(results),
    }


def kernels(results: Results) -> list[str]:
    """The kernels' names, in the order that they were compiled."""
    return distinct(one.kernel for one in results.builds)


def facts(results: Results) -> list[tuple[str, list[str]]]:
    """What was done, in short."""
    return [
        ("kernels", [KERNELS.get(name, name) for name in kernels(results)]),
        ("compiled for", [card.name for card in _cards(results)]),
        ("compiled with", [f"triton {results.environment.get('triton', '?')}"]),
        ("timed on", [results.device or "nothing: no CUDA device"]),
    ]


def sentences(results: Results) -> list[str]:
    """The answer, computed."""
    builds = results.builds
    spilled = [one for one in builds if one.spill_stores or one.spill_loads]
    said = [
        f"{len(builds)} builds (kernel, dtype, tile, architecture) compile without a GPU, for "
        f"{listing([card.name for card in _cards(results)])}. "
        + (f"{_named(spilled)} spill registers." if spilled else "None spills registers.")
    ]
    full = [one for one in builds if one.registers >= occupancy.REGISTERS_PER_THREAD]
    if full:
        said.append(
            f"{_named(full)} take all {occupancy.REGISTERS_PER_THREAD} registers of a thread."
        )
    for name in kernels(results):
        mine = [one for one in builds if one.kernel == name]
        registers = _span([one.registers for one in mine], str)
        share = _span([one.occupancy for one in mine], figures.percent)
        said.append(
            f"{KERNELS.get(name, name)}: {registers} registers a thread; {share} of an SM’s warps "
            "fit at once."
        )
    if results.checks:
        cases = sum(one.cases for one in results.checks)
        worst = max(results.checks, key=lambda one: one.worst)
        where = listing(distinct(_where(one.device) for one in results.checks))
        right = "All" if worst.worst <= 1 else "Not all"
        said.append(
            f"{right} of {cases} random problems, run {where}, are within what rounding allows; "
            f"the largest error is {worst.worst:.2f} of it."
        )
    if results.device:
        said.append(f"Timed on {results.device}.")
    else:
        said.append("Not timed: no CUDA device. Nothing here says how fast they are.")
    return said


def drawn(results: Results) -> list[FigureGroup]:
    """Occupancy, one group per kernel and one panel per architecture; the first dtype alone."""
    result = []
    for place, kernel in enumerate(kernels(results)):
        mine = [one for one in results.builds if one.kernel == kernel]
        dtypes = distinct(one.dtype for one in mine)
        mine = [one for one in mine if one.dtype == dtypes[0]]
        panels = []
        for card in _cards(results):
            here = [one for one in mine if one.capability == card.number]
            if not here:
                continue
            ident = f"occupancy-{place}-{card.number}"
            limit = max(one.occupancy for one in mine)
            drawing = figures.occupancy(here, ident, limit=limit)
            panels.append(Panel(card.name, card.gpus, Markup(svg.inline(drawing, ident))))
        more = f" The other dtype ({dtypes[1]}) is in the table." if len(dtypes) > 1 else ""
        result.append(
            FigureGroup(
                caption=f"{KERNELS.get(kernel, kernel)}: theoretical occupancy, {dtypes[0]}",
                sources=("computed",),
                legend=[],
                panels=panels,
                remarks=(f"Rows: tile (m × n × k) and variant.{more}",),
            )
        )
    return result


def resources(kernel: str, results: Results) -> Table:
    """Registers, shared memory and occupancy of each build of a kernel."""
    mine = [one for one in results.builds if one.kernel == kernel]
    return Table(
        caption=f"{KERNELS.get(kernel, kernel)}: what each build takes",
        columns=[
            Column("tile", "m × n × k", number=False),
            Column("variant", number=False),
            Column("dtype", number=False),
            Column("warps", "of a block"),
            Column("registers", "of a thread"),
            Column("spilled", "bytes stored, loaded"),
            Column("shared memory", "of a block, KiB"),
            Column("product", "PTX", number=False),
            Column("blocks", "on an SM", source="computed"),
            Column("occupancy", "of the warps", source="computed"),
            Column("limited by", number=False),
        ],
        groups=[
            Rows(
                f"{card.name} ({card.gpus})",
                _resource_rows([one for one in mine if one.capability == card.number]),
            )
            for card in _cards(results)
        ],
        source="compiled",
    )


def _resource_rows(builds: Sequence[Build]) -> list[list[Field]]:
    """A row for each build; dtypes that differ in nothing share one."""
    rows: dict[Build, list[str]] = {}
    for one in builds:
        rows.setdefault(one.model_copy(update={"dtype": ""}), []).append(one.dtype)
    return [_resource_row(one, ", ".join(dtypes)) for one, dtypes in rows.items()]


def _resource_row(one: Build, dtypes: str) -> list[Field]:
    spills = f"{one.spill_stores}, {one.spill_loads}"
    full = one.registers >= occupancy.REGISTERS_PER_THREAD
    return [
        Field(one.tile),
        Field(one.variant),
        Field(dtypes),
        Field(str(one.warps)),
        Field(
            str(one.registers),
            tip="the most that a thread can have" if full else "",
            tone="bad" if full else "",
        ),
        Field(spills, tone="bad" if one.spill_stores or one.spill_loads else ""),
        Field(f"{one.shared / 1024:g}", one.shared, "bytes", units.exact_bytes(one.shared)),
        Field(one.product, code=True),
        Field(str(one.blocks)),
        Field(figures.percent(one.occupancy), one.occupancy, "share"),
        Field(one.limit),
    ]


def checks(results: Results) -> Table:
    """The random problems, and how near the kernels came to what rounding allows."""
    return Table(
        caption="Random shapes, odd ones among them: the largest error as a share of what rounding "
        "allows",
        columns=[
            Column("kernel", number=False),
            Column("dtype", number=False),
            Column("run on", number=False),
            Column("problems"),
            Column("largest error", "of what is allowed"),
            Column("of the problem", "rows × columns × depth", number=False),
            Column("largest problem", "rows × columns × depth", number=False),
        ],
        groups=[
            Rows(
                "",
                [
                    [
                        Field(KERNELS.get(one.kernel, one.kernel)),
                        Field(one.dtype),
                        Field("interpreter" if one.device == "cpu" else one.device),
                        Field(str(one.cases)),
                        Field(
                            f"{one.worst:.2f}",
                            one.worst,
                            "share",
                            tone="good" if one.worst <= 1 else "bad",
                        ),
                        Field(one.worst_case),
                        Field(one.largest),
                    ]
                    for one in results.checks
                ],
            )
        ],
    )


def times(results: Results) -> Table:
    """Milliseconds on the GPU, one pass beside the separate kernels."""
    return Table(
        caption=f"Time of one call on {results.device}: median (20th to 80th percentile)",
        columns=[
            Column("layer", "rows × columns × depth", number=False),
            Column("tile", number=False),
            Column("one pass", "ms"),
            Column("separate kernels", "ms"),
            Column("faster by"),
        ],
        groups=[
            Rows(
                KERNELS.get(kernel, kernel),
                [
                    [
                        Field(one.shape),
                        Field(one.tile),
                        *(
                            Field(f"{middle:.4g} ({low:.4g} to {high:.4g})", middle, "milliseconds")
                            for middle, low, high in (one.fused, one.separate)
                        ),
                        Field(f"{one.separate[0] / one.fused[0]:.2f} ×"),
                    ]
                    for one in results.timings
                    if one.kernel == kernel
                ],
            )
            for kernel in distinct(one.kernel for one in results.timings)
        ],
        source="measured",
    )


def nf4_bytes() -> Table:
    """What the decoded copy of the weight would move, by shape."""
    return _bytes(
        "NF4, 8-bit absmax: bytes moved by one product",
        "decode, then multiply",
        {shape: traffic.nf4(shape) for shape in traffic.SHAPES},
    )


def lora_bytes() -> Table:
    """What the adapter's separate kernels move, by shape."""
    return _bytes(
        f"LoRA, rank {RANK}: bytes moved by one forward of a layer",
        "peft’s five kernels",
        {shape: traffic.lora(shape, RANK) for shape in traffic.SHAPES},
    )


def _bytes(caption: str, separate: str, moved: dict[traffic.Shape, traffic.Traffic]) -> Table:
    return Table(
        caption=caption,
        columns=[
            Column("rows of x", number=False),
            Column("one pass", "MiB"),
            Column(separate, "MiB"),
            Column("saved", "MiB"),
            Column("saved", "of all"),
            Column("temporary memory", "saved, MiB"),
        ],
        groups=[
            Rows(
                f"{layer} of Llama-3.2-3B: {shape.columns} × {shape.depth}",
                [
                    [
                        Field(units.count(one.rows)),
                        _mib(found.fused),
                        _mib(found.separate),
                        _mib(found.saved),
                        Field(units.percent(found.saved, found.separate)),
                        _mib(found.temporary),
                    ]
                    for one, found in moved.items()
                    if one.layer == layer
                ],
            )
            for layer, shape in {one.layer: one for one in moved}.items()
        ],
        source="computed",
    )


def rules() -> Table:
    """The limits that occupancy is computed from."""
    return Table(
        caption="What one SM holds",
        columns=[
            Column("architecture", number=False),
            Column("GPUs", number=False),
            Column("warps"),
            Column("blocks"),
            Column("registers"),
            Column("shared memory", "KiB"),
            Column("of one block", "KiB, at most"),
        ],
        groups=[
            Rows(
                "",
                [
                    [
                        Field(card.name),
                        Field(card.gpus),
                        Field(str(card.warps)),
                        Field(str(card.blocks)),
                        Field(units.count(card.registers)),
                        Field(str(card.shared // occupancy.KIB)),
                        Field(str(card.shared_block // occupancy.KIB)),
                    ]
                    for card in CAPABILITIES.values()
                ],
            )
        ],
    )


def download(results: Results) -> str:
    """The results as gzipped JSON in a data URI."""
    # A fixed time stamp: the same results give the same page.
    data = gzip.compress(results.to_json().encode("utf-8"), mtime=0)
    return f"data:application/gzip;base64,{base64.b64encode(data).decode('ascii')}"


def _cards(results: Results) -> Sequence[occupancy.Capability]:
    found = {one.capability for one in results.builds}
    return [card for number, card in CAPABILITIES.items() if number in found]


def _where(device: str) -> str:
    return "in Triton’s interpreter on the CPU" if device == "cpu" else f"on {device}"


def _span(numbers: Sequence[float], write: Callable[[float], str]) -> str:
    """From the least to the most."""
    return " to ".join(dict.fromkeys((write(min(numbers)), write(max(numbers)))))


def _named(builds: Sequence[Build]) -> str:
    """Builds in words: how many, and which, dtypes and variants left out."""
    where: dict[str, list[str]] = {}
    for one in builds:
        cards = where.setdefault(f"{one.kernel} {one.tile}", [])
        cards += [f"sm_{one.capability}"] * (f"sm_{one.capability}" not in cards)
    named = listing([f"{name} on {listing(cards)}" for name, cards in where.items()])
    return f"{len(builds)} of them ({named})"


def _mib(nbytes: int) -> Field:
    return Field(f"{nbytes / MIB:,.2f}", nbytes, "bytes", units.exact_bytes(nbytes))
