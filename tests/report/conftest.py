"""Synthetic records as a study of OPT-6.7B would give them: consistent, quick, without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import pytest

from profiler.record import Kernel, Record, Time, Timeline
from profiler.trace import CATEGORIES

GIB = 2**30
MIB = 2**20
BASE = 6_658_473_984

CARDS = {"rtx-4090": 24 * GIB, "l40s": 45 * GIB, "a100-80gb": 80 * GIB}

METHODS: dict[str, dict[str, Any]] = {
    "full": {"preset": "full", "trainable": BASE, "config": None},
    "lora:r=8,target_modules=q_proj+v_proj": {
        "preset": "lora",
        "trainable": 4_194_304,
        "config": {"peft_type": "LORA", "r": 8, "target_modules": ["v_proj", "q_proj"]},
    },
    "lora:r=64": {
        "preset": "lora",
        "trainable": 33_554_432,
        "config": {"peft_type": "LORA", "r": 64, "target_modules": ["q_proj", "v_proj"]},
    },
    "qlora": {
        "preset": "qlora",
        "trainable": 67_108_864,
        "config": {
            "peft_type": "LORA",
            "r": 64,
            "target_modules": ["k_proj", "out_proj", "q_proj", "v_proj"],
        },
        "quantization": "nf4-dq",
    },
    "p-tuning": {
        "preset": "p-tuning",
        "trainable": 50_425_856,
        "config": {"peft_type": "P_TUNING", "num_virtual_tokens": 20},
    },
    "prompt-tuning": {
        "preset": "prompt-tuning",
        "trainable": 81_920,
        "config": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 20},
    },
    "ia3": {"preset": "ia3", "trainable": 786_432, "config": {"peft_type": "IA3"}},
    "bitfit": {"preset": "bitfit", "trainable": 1_716_224, "config": None},
}

RecordFactory = Callable[..., Record]


def at_peak(method: str, device: str, batch_size: int, seq_len: int) -> dict[str, int]:
    """Bytes by category; multiples of 512, as CUDA's allocator gives them."""
    trained = METHODS[method]["trainable"]
    full = method == "full"
    tokens = batch_size * seq_len
    quantised = method == "qlora"
    adapter = 0 if full or method == "bitfit" else 4 * trained
    state = {
        "base_parameters": BASE // 2 if quantised else 2 * BASE,
        "adapter_parameters": adapter,
        "buffers": 2 * MIB,
        "quantization_state": 121 * MIB if quantised else 0,
        "gradients": (2 if full else 4) * trained,
        "activation_gradients": tokens * 4096 * 2,
        "optimizer_state": 0 if quantised else (4 if full else 8) * trained,
        "activations": tokens * 32 * 4096 * 34,
        "logits_and_loss": tokens * 50272 * 6,
        "kv_cache": 0,
        "inputs": tokens * 24,
        "workspaces": 2 * 8_519_680,
        "temporaries": 2 * BASE if full else (4096 * 16384 * 2 if device == "a100-80gb" else 0),
    }
    return {name: -(-state[name] // 512) * 512 for name in CATEGORIES}


def make_record(
    method: str = "lora:r=64",
    device: str = "rtx-4090",
    *,
    model: str = "opt-6.7b",
    batch_size: int = 1,
    seq_len: int = 128,
    **changes: Any,
) -> Record:
    """A record whose sums agree as the contract says. `changes` replace its top-level keys."""
    parts = at_peak(method, device, batch_size, seq_len)
    allocated = sum(parts.values())
    reserved = -(-(allocated + 300 * MIB) // (2 * MIB)) * 2 * MIB
    context = 480 * MIB
    capacity = CARDS[device]
    headroom = capacity - reserved - context
    trainable = METHODS[method]["trainable"]
    total = BASE if method in ("full", "bitfit") else BASE + trainable
    flops = {
        "forward": 2 * BASE * batch_size * seq_len,
        "backward": (4 if method == "full" else 2) * BASE * batch_size * seq_len,
        "recompute": 0,
        "optimizer": 0,
    }
    seconds = sum(flops.values()) / 6e13
    layers = [
        {
            "bytes": 4096 * 16384 * 2,
            "category": "base_parameters",
            "op": "load",
            "module": f"model.decoder.layers.{layer}.fc{number}",
            "shape": [16384, 4096] if number == 1 else [4096, 16384],
            "dtype": "bfloat16",
            "phase": "setup",
        }
        for layer in range(8)
        for number in (1, 2)
    ]
    head = {
        "bytes": 50272 * 4096 * 2,
        "category": "base_parameters",
        "op": "load",
        "module": "model.decoder.embed_tokens",
        "shape": [50272, 4096],
        "dtype": "bfloat16",
        "phase": "setup",
    }
    data = {
        "schema": 1,
        "id": f"{model}-{METHODS[method]['preset']}-{device}-{method}-{batch_size}-{seq_len}",
        "status": "ok" if headroom >= 0 else "oom",
        "error": None,
        "source": "simulated",
        "spec": {
            "model": model,
            "model_override": [],
            "method": {
                "label": method,
                "preset": METHODS[method]["preset"],
                "options": {},
                "config": METHODS[method]["config"],
            },
            "quantization": METHODS[method].get("quantization", "none"),
            "stack": "trainer",
            "loop": "trainer",
            "optimizer": "adamw",
            "batch_size": batch_size,
            "seq_len": seq_len,
            "grad_accumulation": 1,
            "device": device,
            "seed": 0,
        },
        "params": {
            "total": total,
            "trainable": trainable,
            "trainable_fraction": trainable / total,
            "adapter_file_bytes": 4 * trainable,
        },
        "memory": {
            "peak_allocated": allocated,
            "load_peak": parts["base_parameters"] + 100 * MIB,
            "after_step_allocated": allocated - parts["activations"],
            "peak_reserved": reserved,
            "device_total": reserved + context,
            "phases": {
                "forward": allocated - parts["gradients"] - parts["temporaries"],
                "backward": allocated - parts["temporaries"],
                "optimizer": allocated,
            },
            "at_peak": parts,
            "outside_allocator": {"cuda_context": context, "paged_state": 0},
            "largest_at_peak": [head, *layers],
        },
        "flops": {"total": sum(flops.values()), "phases": flops},
        "time": {
            "source": "predicted",
            "step": seconds,
            "phases": {"forward": seconds / 3, "backward": 2 * seconds / 3, "optimizer": 0.0},
            "tokens_per_second": batch_size * seq_len / seconds,
        },
        "fits": {"capacity": capacity, "headroom": headroom},
        "approximations": ["The step time is a model's."],
        "environment": {
            "python": "3.11.2",
            "torch": "2.13.0+cpu",
            "transformers": "5.23.0",
            "peft": "0.21.2",
            "bitsandbytes": "0.50.2",
            "cpu": "a processor",
            "os": "Linux",
            "commit": "0123456789abcdef",
            "fingerprint": "feedfacecafe",
        },
    }
    return Record.from_dict({**data, **changes})


def with_charts(record: Record, points: int = 60) -> Record:
    """The record with a timeline, modules and kernels, which agree with its peak."""
    result = record.model_copy(deep=True)
    parts = {name: nbytes for name, nbytes in result.memory.at_peak.items() if nbytes}
    peak = points * 2 // 3
    rising = [min(index, 2 * peak - index) / peak for index in range(points)]
    fixed = ("base_parameters", "adapter_parameters", "buffers", "quantization_state")
    result.memory.timeline = Timeline(
        event=[1000 + 3 * index for index in range(points)],
        phase=[
            ("forward", "backward", "optimizer")[3 * index // points] for index in range(points)
        ],
        allocated={
            name: [nbytes if name in fixed else int(nbytes * max(0, part)) for part in rising]
            for name, nbytes in parts.items()
        },
        reserved=[result.memory.peak_reserved or 0] * points,
    )
    result.memory.modules = {
        "": {"parameters": 4096, "activations": 0},
        "model.decoder.embed_tokens": {"parameters": 50272 * 8192, "activations": 0},
        **{
            f"model.decoder.layers.{layer}.fc{number}": {
                "parameters": 4096 * 16384 * 2,
                "activations": 2 * MIB,
            }
            for layer in range(4)
            for number in (1, 2)
        },
    }
    assert result.time is not None
    result.time.kernels = [
        Kernel(
            name=f"kernel {number}",
            op="aten.mm",
            phase=("forward", "backward")[number % 2],
            count=number + 1,
            seconds=1e-3 / (number + 1),
            flops=10**10 * (number + 1),
            bytes=MIB * (number + 1),
        )
        for number in range(6)
    ]
    step = result.time.step
    result.time.bound = {"launch": step / 8, "memory": step / 4, "compute": step * 5 / 8}
    return result


def on_cpu(device: str, method: str = "lora:r=64", **changes: Any) -> Record:
    """A record of a CPU: measured (`cpu`) or simulated as it (`sim:cpu`), equal to the byte."""
    result = make_record(method, **changes)
    result.spec["device"] = device
    result.id = f"{result.id}-{device}"
    result.source = "measured" if device == "cpu" else "simulated"
    result.fits = result.energy = None
    memory = result.memory
    memory.peak_reserved = memory.device_total = None
    memory.outside_allocator = {}
    result.environment |= {"cpu_features": ["avx2"]}
    result.time = None
    if device == "cpu":
        memory.process = {"rss_before": 600 * MIB, "rss_peak": 20 * GIB}
        result.time = Time(
            source="measured",
            step=4.2,
            phases={"forward": 1.4, "backward": 2.7, "optimizer": 0.1},
            tokens_per_second=30.5,
            spread={"p20": 4.1, "median": 4.2, "p80": 4.4},
            kernels=[
                Kernel(
                    name=f"kernel {number}",
                    op="aten.mm",
                    phase="forward",
                    count=number + 1,
                    seconds=0.5 / (number + 1),
                    flops=10**9 * number,
                    bytes=MIB * number,
                )
                for number in range(14)
            ],
        )
    return result


@pytest.fixture
def record() -> RecordFactory:
    """`make_record`."""
    return make_record


@pytest.fixture(scope="session")
def record_maker() -> RecordFactory:
    """`make_record`, for fixtures that live longer than a test."""
    return make_record


@pytest.fixture(scope="session")
def charted() -> Callable[[Record], Record]:
    """`with_charts`."""
    return with_charts


@pytest.fixture
def cpu() -> RecordFactory:
    """`on_cpu`."""
    return on_cpu


@pytest.fixture(scope="session")
def study() -> list[Record]:
    """Eight methods on three cards; a failed and an unsupported cell beside them."""
    cells = [make_record(method, card) for card in CARDS for method in METHODS]
    nothing: dict[str, Any] = {
        "params": None,
        "memory": {},
        "flops": None,
        "time": None,
        "fits": None,
    }
    cells.append(
        make_record(
            "bitfit",
            "l40s",
            model="llama-3.2-3b",
            status="unsupported",
            error="llama-3.2-3b has no bias to train",
            **nothing,
        )
    )
    cells.append(
        make_record(
            "lora:r=64", "l40s", model="llama-3.2-3b", status="failed", error="boom", **nothing
        )
    )
    return cells


@pytest.fixture(scope="session")
def paired() -> list[Record]:
    """Measured cells on a CPU and their simulations: one pair equal, one near, one apart."""
    records = [
        on_cpu(device, method, model="small")
        for method in ("full", "ia3", "qlora")
        for device in ("cpu", "sim:cpu")
    ]
    for record, nbytes in ((records[3], -4096), (records[5], 200 * MIB)):
        memory = record.memory
        assert memory.peak_allocated
        memory.peak_allocated += nbytes
        memory.at_peak["activations"] += nbytes
        memory.phases = {name: size + nbytes for name, size in memory.phases.items()}
    return records


@dataclass
class HtmlCell:
    """A `td` or `th`: its text and attributes."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class HtmlTable:
    """A table of the page; `rows` are those of its bodies."""

    caption: str = ""
    header: list[HtmlCell] = field(default_factory=list)
    rows: list[list[HtmlCell]] = field(default_factory=list)


@dataclass
class Html(HTMLParser):
    """What a browser would make of a page: every start tag, and the tables."""

    source: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    tables: list[HtmlTable] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "table":
            self.tables.append(HtmlTable())
        elif tag == "tr" and "tbody" in self._open:
            self.tables[-1].rows.append([])
        elif tag in ("td", "th"):
            cell = HtmlCell(tag, dict(attrs))
            where = self.tables[-1].rows[-1] if "tbody" in self._open else self.tables[-1].header
            where.append(cell)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "table" not in self._open:
            return
        if "caption" in self._open:
            self.tables[-1].caption += data
        elif "td" in self._open or "th" in self._open:
            body = "tbody" in self._open
            row = self.tables[-1].rows[-1] if body else self.tables[-1].header
            row[-1].text += data

    def table(self, words: str) -> HtmlTable:
        """The one table whose caption holds `words`."""
        (found,) = [table for table in self.tables if words in table.caption]
        return found

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def html() -> type[Html]:
    """A reader of pages."""
    return Html
