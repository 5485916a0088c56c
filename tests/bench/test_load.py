"""What loading allocates: `from_pretrained`, quantisation, preparation, the adapter."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from pathlib import Path

import bitsandbytes
import pytest
import torch
from tiny import write

from profiler.analysis import memory
from profiler.analysis.alloc_conf import AllocConf
from profiler.analysis.allocator import replay
from profiler.bench.load import Load
from profiler.bench.modules import ModulePaths
from profiler.bench.simulated import simulate
from profiler.bench.tracker import Rules, StorageTracker
from profiler.execute import run
from profiler.hardware import devices
from profiler.record import LoadMemory, Memory
from profiler.resolve import Cell, resolve
from profiler.spec import RunSpec
from profiler.subject.shadows import Shadows
from profiler.subject.subject import Subject, build
from profiler.trace import Trace

MIB = 2**20
#: Wide enough that the allocator's rounding is small beside the weights.
WIDE = (
    "hidden_size=1024",
    "intermediate_size=2048",
    "num_hidden_layers=2",
    "num_key_value_heads=4",
    "vocab_size=128",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def wide(models: dict[str, str]) -> dict[str, object]:
    return {"model": models["llama"], "model_override": WIDE, "seq_len": 8, "device": "a100-80gb"}


def loaded(**fields: object) -> tuple[Load, Subject, Cell]:
    """A model loaded for a simulation, and no step run."""
    cell = resolve(RunSpec(**{"device": "a100-80gb", "seq_len": 8, **fields}))  # type: ignore[arg-type]
    load = Load.of(cell.spec, devices.device(cell.spec.device))
    return load, build(cell, load=load), cell


def sizes(load: Load) -> list[int]:
    """Bytes of each event in order: taken, and with a minus given back."""
    blocks = load.blocks
    return [
        blocks[event - 1].nbytes if event > 0 else -blocks[-event - 1].nbytes
        for event in load.events
        if event
    ]


def simulated(**fields: object) -> tuple[Memory, LoadMemory]:
    record = run(RunSpec(**fields))  # type: ignore[arg-type]
    assert record.status == "ok", record.error
    assert record.memory.load is not None
    return record.memory, record.memory.load


CELLS = [
    {"stack": "script"},
    {"stack": "script", "method": "full"},
    {"stack": "script", "method": "lora:init_lora_weights=pissa"},
    {"stack": "trainer"},
    {"stack": "trainer", "method": "qlora"},
    {"stack": "trl"},
    {"stack": "trl", "method": "qlora"},
    {"stack": "script", "quantization": "int8"},
    {"stack": "script", "method": "prefix-tuning", "quantization": "fp4"},
]


@pytest.mark.parametrize("fields", CELLS, ids=str)
def test_parts_sum_up(wide: dict[str, object], fields: dict[str, object]) -> None:
    result, load = simulated(**wide, **fields)
    assert result.load_peak == load.peak_allocated == sum(load.at_peak.values())
    assert load.after_allocated <= load.peak_allocated <= load.peak_reserved
    assert load.after_allocated <= load.after_reserved <= load.peak_reserved
    # What was loaded is there in every step, and what was reserved is not given back.
    assert min(result.phases.values()) >= load.after_allocated
    assert result.peak_reserved is not None
    assert result.peak_reserved >= load.after_reserved


@pytest.mark.parametrize("fields", CELLS[::3], ids=str)
def test_a_step_asks_for_the_same_after_any_load(
    wide: dict[str, object], fields: dict[str, object]
) -> None:
    """The load decides which segments there are, not what a step asks of them."""

    def asked(with_load: bool) -> tuple[list[int], list[str]]:
        load, subject, cell = loaded(**wide, **fields)
        device = devices.device(cell.spec.device)
        trace = simulate(subject, cell.spec, device, load if with_load else None)
        first = next(mark.event for mark in trace.marks if mark.phase == "forward")
        steps = [
            (1 if event > 0 else -1) * trace.blocks[abs(event) - 1].nbytes if event else 0
            for event in trace.events
        ]
        return list(accumulate(steps))[first:], [
            block.category for block in trace.blocks if block.phase != "load"
        ]

    level, categories = asked(True)
    level_alone, categories_alone = asked(False)
    kept = 1024 if "qlora" in fields.values() else 0  # the map of double quantisation
    assert level == [held + kept for held in level_alone]
    assert categories == categories_alone[-len(categories) :]


def test_layers_are_quantised_one_by_one(wide: dict[str, object]) -> None:
    """At no time is the 16-bit model there: the peak is the packed one's and a layer or two."""
    _, plain = simulated(**wide, stack="script", method="lora")
    for quantization, copies in (("nf4", 1), ("nf4-dq", 1), ("int8", 2)):
        _, load = simulated(**wide, stack="script", method="lora", quantization=quantization)
        largest = 2 * 1024 * 2048  # a matrix of the MLP in 16 bits
        assert load.peak_allocated < 0.8 * plain.after_allocated
        assert load.after_allocated <= load.peak_allocated
        assert load.peak_allocated - load.after_allocated <= copies * largest + MIB


def test_a_turned_weight_is_there_twice(models: dict[str, str]) -> None:
    """GPT-2's linear layers are `Conv1D`: their weights are copied before they are packed."""
    load, subject, _ = loaded(model=models["gpt2"], stack="script", quantization="nf4")
    sixteen = [
        2 * module.weight.quant_state.shape.numel()
        for module in subject.model.modules()
        if hasattr(module, "source_cls")
    ]
    assert sixteen
    freed = Counter(-size for size in sizes(load) if size < 0)
    for size, modules in Counter(sixteen).items():
        assert freed[size] >= 2 * modules


def test_preparation_has_each_cast_weight_twice_for_a_while(wide: dict[str, object]) -> None:
    vocabulary = {**wide, "model_override": (*WIDE[:-1], "vocab_size=32000")}
    matrix = 32000 * 1024
    _, bare = simulated(**vocabulary, stack="script", quantization="nf4")
    _, prepared = simulated(**vocabulary, stack="script", quantization="nf4", kbit_prepare="peft")
    # Embedding and head, from 2 to 4 bytes; the last of them is there in both for a moment.
    assert prepared.after_allocated - bare.after_allocated == pytest.approx(4 * matrix, rel=0.03)
    assert prepared.peak_allocated - prepared.after_allocated == pytest.approx(2 * matrix, rel=0.1)
    empties = [
        loaded(**vocabulary, stack="script", quantization="nf4", kbit_prepare=kind)[0].events
        for kind in ("none", "peft")
    ]
    assert [0 in events for events in empties] == [False, True]
    assert not torch.cuda.is_available()


def test_a_warm_cache_is_cut_up_and_a_moved_model_has_segments_of_its_own(
    wide: dict[str, object],
) -> None:
    load, subject, _ = loaded(**wide, stack="script", method="full")
    total = sum(tensor.numel() * 2 for tensor in subject.model.parameters())
    assert sizes(load)[:2] == [total, -total]
    with_warm_up = replay([block.nbytes for block in load.blocks], load.events)
    # Norms (2 KiB each) are in the small pool; the block that was warmed has all the rest.
    assert max(with_warm_up.reserved) - total < 6 * MIB

    load, subject, _ = loaded(**wide, stack="trainer", method="full")
    assert all(size > 0 for size in sizes(load))
    quantised, subject, _ = loaded(**wide, stack="trainer", quantization="nf4")
    matrices = [
        module.weight for module in subject.model.modules() if hasattr(module, "quant_state")
    ]
    assert matrices
    packed = sum(weight.numel() for weight in matrices)
    others = sum(
        2 * tensor.numel()
        for name, tensor in subject.model.named_parameters()
        if "lora" not in name and all(tensor is not weight for weight in matrices)
    )
    assert sizes(quantised)[0] == packed + others


def test_a_model_larger_than_the_card_ends_in_its_load() -> None:
    """The warm-up leaves 1.2 GiB free; the weights themselves are what does not fit."""
    load, _, cell = loaded(model="opt-13b", method="bitfit", stack="script", device="t4")
    card = devices.device("t4")
    assert sizes(load)[0] == int((card.memory_bytes - 1.2 * 2**30) // 2) * 2
    trace = Trace(cuda=True, source="simulated", blocks=load.blocks, events=load.events)
    oom = memory.levels(trace, AllocConf.parse(cell.spec.alloc_conf), card.usable_bytes).oom
    assert oom is not None
    assert load.blocks[load.events[oom.event] - 1].op == "load"


@pytest.mark.parametrize("weights", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("quantization", ["nf4", "nf4-dq", "fp4"])
def test_quantising_takes_what_bitsandbytes_takes(
    models: dict[str, str], quantization: str, weights: torch.dtype
) -> None:
    """One layer's events against the real function's, as the tracker sees them on this CPU."""
    load, subject, _ = loaded(
        model=models["llama"],
        stack="script",
        quantization=quantization,
        weights_dtype=str(weights).removeprefix("torch."),
        method="lora:target_modules=o_proj",
    )
    first = next(
        module
        for path, module in subject.model.named_modules()
        if path.endswith("layers.0.mlp.down_proj")
    )
    shape = first.weight.quant_state.shape
    held = [block.nbytes for block in load.blocks]
    source = shape.numel() * weights.itemsize
    begin = next(
        index
        for index, event in enumerate(load.events)
        if event > 0 and load.blocks[event - 1].op == "load" and held[event - 1] == source
        if held[load.events[index + 1] - 1] == 4 * shape.numel() // 64
    )
    end = load.events.index(-load.events[begin])
    ours = sizes(load)[begin : end + 1]

    trace = Trace(cuda=False, source="measured")
    shadows = Shadows()
    shadows.enabled = False
    tracker = StorageTracker(trace, ModulePaths(torch.nn.Module()), Rules(), shadows)
    small = torch.zeros(64, 64)
    bitsandbytes.functional.quantize_4bit(
        small, compress_statistics=True
    )  # makes the library's own map
    with tracker:
        weight = torch.empty(shape, dtype=weights)
        _packed, _state = bitsandbytes.functional.quantize_4bit(
            weight,
            compress_statistics=quantization.endswith("dq"),
            quant_type=quantization[:3],
        )
        del weight
    real = [
        (1 if event > 0 else -1) * trace.blocks[abs(event) - 1].nbytes for event in trace.events
    ]
    if quantization.endswith("dq"):
        ours.remove(256 * 4)  # that map
    assert sorted(real) == sorted(ours)
    table = 16 * 4  # a literal, which the tracker of a CPU sees at its first use
    assert max(accumulate(real)) == pytest.approx(max(accumulate(ours)), abs=table)


def test_adapters_are_cast_on_the_device(wide: dict[str, object]) -> None:
    """peft makes them on the host, moves them in the weights' 16 bits, and casts each then."""
    load, subject, _ = loaded(**wide, stack="script", method="lora:r=4,target_modules=q_proj")
    adapters = [tensor for name, tensor in subject.model.named_parameters() if "lora" in name]
    assert {tensor.dtype for tensor in adapters} == {torch.float32}
    sixteen = sorted(2 * tensor.numel() for tensor in adapters)
    freed = sorted(-size for size in sizes(load)[2:] if size < 0)
    assert freed == sixteen
    full = sum(4 * tensor.numel() for tensor in adapters)
    base = sum(
        2 * tensor.numel()
        for name, tensor in subject.model.named_parameters()
        if "lora" not in name
    )
    buffers = sum(buffer.untyped_storage().nbytes() for buffer in {*subject.model.buffers()})
    assert sum(sizes(load)) == base + full + buffers


def test_decompositions_are_seen(wide: dict[str, object]) -> None:
    plain, *_ = loaded(**wide, stack="script", method="lora")
    pissa, *_ = loaded(**wide, stack="script", method="lora:init_lora_weights=pissa")
    matrix = 4 * 1024 * 1024  # one factor of a square matrix's decomposition, in float32
    assert max(accumulate(sizes(pissa)[2:])) > max(accumulate(sizes(plain)[2:])) + 2 * matrix


def test_a_cpu_has_no_load(models: dict[str, str]) -> None:
    """Weights are mapped from their file there, and our own loader is not `from_pretrained`."""
    record = run(RunSpec(model=models["llama"], seq_len=8, device="sim:cpu"))
    assert record.status == "ok"
    assert record.memory.load is None
    assert record.memory.load_peak is None


#: `torch.cuda.memory_allocated()` after loading, in MiB (tests/bench/test_published.py).
PUBLISHED = [("tinyllama-1.1b", 1074), ("smollm2-1.7b", 1296)]


@pytest.mark.parametrize(("model", "published"), PUBLISHED)
def test_published_after_load(model: str, published: int) -> None:
    """TinyLlama's is 19 MiB above the sum of its tensors: rests of cached blocks of up to 1 MiB,
    which the allocator does not split off."""
    load, _, cell = loaded(
        model=model,
        method="lora:r=32,target_modules=q_proj+k_proj+v_proj+o_proj",
        quantization="nf4",
        kbit_prepare="peft",
        weights_dtype="float16",
        stack="script",
        device="t4",
    )
    trace = Trace(cuda=True, source="simulated", blocks=load.blocks, events=load.events)
    level = memory.levels(trace, AllocConf.parse(cell.spec.alloc_conf), None)
    assert level.allocated[-1] / MIB == pytest.approx(published, abs=0.5)
