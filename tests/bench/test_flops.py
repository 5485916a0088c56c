"""FLOPs held to closed forms: what a pencil gives for a transformer's matrix products.

A product of (T, K) by (K, N) is 2 T K N. Its backward is as much for the gradient of its input, if
anything before it trains, and as much again for its weight's, if that trains.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from agreement import tracked
from tiny import CONFIGS, write

from profiler.execute import run
from profiler.record import Flops
from profiler.spec import RunSpec
from profiler.subject.models import ARCHITECTURES

BATCH, LENGTH = 2, 32
TOKENS = BATCH * LENGTH

#: The layers whose input is a layer's own.
FIRST = ("q", "k", "v")


@dataclass(frozen=True)
class Shape:
    """Widths of a Llama or an OPT."""

    hidden: int
    layers: int
    heads: int
    groups: int
    head: int
    inner: int
    vocabulary: int
    llama: bool

    @classmethod
    def of(cls, config: dict[str, Any]) -> Shape:
        llama = config["model_type"] == "llama"
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            groups=config.get("num_key_value_heads", heads),
            head=config.get("head_dim", config["hidden_size"] // heads),
            inner=config["intermediate_size" if llama else "ffn_dim"],
            vocabulary=config["vocab_size"],
            llama=llama,
        )

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Features in and out of one layer's products by a weight."""
        queries, keys = self.heads * self.head, self.groups * self.head
        shapes = {
            "q": (self.hidden, queries),
            "k": (self.hidden, keys),
            "v": (self.hidden, keys),
            "o": (queries, self.hidden),
            "up": (self.hidden, self.inner),
            "down": (self.inner, self.hidden),
        }
        return {**shapes, "gate": (self.hidden, self.inner)} if self.llama else shapes

    @property
    def products(self) -> int:
        """Of one layer by its weights, forwards."""
        return sum(2 * TOKENS * size * out for size, out in self.linears.values())

    @property
    def scores(self) -> int:
        """One of attention's products in one layer: the whole square, causal or not."""
        return 2 * BATCH * self.heads * LENGTH**2 * self.head

    @property
    def output(self) -> int:
        return 2 * TOKENS * self.hidden * self.vocabulary

    def forward(self) -> int:
        return self.layers * (self.products + 2 * self.scores) + self.output

    def full_backward(self, attention: int = 5) -> int:
        """Everything twice; attention's products as often as its kernel makes them."""
        return self.layers * (2 * self.products + attention * self.scores) + 2 * self.output

    def adapters(self, rank: int, names: tuple[str, ...]) -> int:
        """LoRA's own products of one layer, forwards."""
        return sum(2 * TOKENS * rank * sum(self.linears[name]) for name in names)

    def lora_backward(
        self, rank: int, names: tuple[str, ...], *, attention: int = 5, input_grad: bool = False
    ) -> int:
        """Frozen weights have no gradient, and what stands before the first adapter has none."""
        layer = self.products + attention * self.scores + 2 * self.adapters(rank, names)
        spared = sum(2 * TOKENS * size * out for size, out in map(self.linears.__getitem__, FIRST))
        spared += sum(2 * TOKENS * rank * self.linears[name][0] for name in names if name in FIRST)
        return self.layers * layer + self.output - (0 if input_grad else spared)


#: What `lora` adapts by the names of each family, and of this file.
NAMES = {
    "llama": {
        "q_proj": "q",
        "k_proj": "k",
        "v_proj": "v",
        "o_proj": "o",
        "gate_proj": "gate",
        "up_proj": "up",
        "down_proj": "down",
    },
    "opt": {
        "q_proj": "q",
        "k_proj": "k",
        "v_proj": "v",
        "out_proj": "o",
        "fc1": "up",
        "fc2": "down",
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def flops(model: str, **fields: object) -> Flops:
    spec = {"batch_size": BATCH, "seq_len": LENGTH, "device": "a100-80gb", **fields}
    record = run(RunSpec(model=model, **spec))  # type: ignore[arg-type]
    assert record.status == "ok", record.error
    assert record.flops is not None
    assert not any("FLOPs" in sentence for sentence in record.approximations)
    return record.flops


def of(counts: Flops) -> tuple[int, int, int, int]:
    assert counts.total == sum(counts.phases.values())
    for phase, count in counts.phases.items():
        assert sum(row.get(phase, 0) for row in counts.modules.values()) == count
    return tuple(counts.phases[name] for name in ("forward", "backward", "recompute", "optimizer"))  # type: ignore[return-value]


@pytest.mark.parametrize("device", ["a100-80gb", "sim:cpu"])
@pytest.mark.parametrize("family", ["opt", "llama"])
def test_full_is_everything_twice(models: dict[str, str], family: str, device: str) -> None:
    shape = Shape.of(CONFIGS[family])
    found = of(flops(models[family], method="full", device=device))
    assert found == (shape.forward(), shape.full_backward(), 0, 0)


@pytest.mark.parametrize(
    ("quantization", "method"),
    [
        ("none", "lora:r=4"),
        ("none", "lora:r=4,target_modules=q_proj+v_proj"),
        ("nf4-dq", "lora:r=4"),
        ("int8", "lora:r=4,target_modules=q_proj+v_proj"),
    ],
)
@pytest.mark.parametrize("family", ["opt", "llama"])
def test_frozen_weights_have_no_gradient_quantised_or_not(
    models: dict[str, str], family: str, quantization: str, method: str
) -> None:
    shape = Shape.of(CONFIGS[family])
    names = ("q", "v") if "+" in method else tuple(NAMES[family].values())
    found = of(flops(models[family], method=method, quantization=quantization))
    forward = shape.forward() + shape.layers * shape.adapters(4, names)
    assert found == (forward, shape.lora_backward(4, names), 0, 0)


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_the_step_really_run_has_them(models: dict[str, str], family: str) -> None:
    shape = Shape.of(CONFIGS[family])
    spec = RunSpec(
        model=models[family], method="qlora:r=4", batch_size=BATCH, seq_len=LENGTH, device="cpu"
    )
    counts = tracked(spec).flops
    assert counts is not None
    names = ("q", "k", "v", "o")
    forward = shape.forward() + shape.layers * shape.adapters(4, names)
    assert of(counts) == (forward, shape.lora_backward(4, names), 0, 0)


REAL = [
    # model, device, dtype, attention's products in a backward: T4 has no kernel for grouped heads
    ("llama-3.2-1b", "l40s", "bfloat16", 5),
    ("llama-3.2-1b", "t4", "float16", 4),
    ("opt-1.3b", "t4", "float16", 5),
]


@pytest.mark.parametrize(("model", "device", "dtype", "attention"), REAL)
@pytest.mark.parametrize("method", ["full", "lora:r=8"])
def test_real_widths(model: str, device: str, dtype: str, attention: int, method: str) -> None:
    config = json.loads((ARCHITECTURES / f"{model}.json").read_text())
    shape = Shape.of({**config, "num_hidden_layers": 2})
    counts = flops(
        model,
        method=method,
        device=device,
        weights_dtype=dtype,
        model_override=("num_hidden_layers=2",),
    )
    names = tuple(NAMES[config["model_type"]].values())
    if method == "full":
        expected = (shape.forward(), shape.full_backward(attention), 0, 0)
    else:
        forward = shape.forward() + 2 * shape.adapters(8, names)
        expected = (forward, shape.lora_backward(8, names, attention=attention), 0, 0)
    assert of(counts) == expected


#: What a layer computes after the last tensor that it saves, where non-reentrant checkpointing
#: stops. A product saves its input or its weight before it runs, and is not run again; likewise
#: that of an adapter's second matrix. A frozen 4-bit product saves nothing. Dropout saves when it
#: has run.
STOPS: list[tuple[str, str, Callable[[Shape], int]]] = [
    ("llama", "full", lambda shape: 2 * TOKENS * shape.inner * shape.hidden),
    ("llama", "lora:r=4,target_modules=q_proj+v_proj", lambda s: 2 * TOKENS * s.inner * s.hidden),
    ("llama", "lora:r=4", lambda shape: 2 * TOKENS * 4 * shape.hidden),
    ("llama", "qlora:r=4", lambda shape: 2 * TOKENS * shape.inner * shape.hidden),
    ("opt", "full", lambda shape: 0),
]


@pytest.mark.parametrize("checkpointing", ["reentrant", "non-reentrant"])
@pytest.mark.parametrize(("family", "method", "spared"), STOPS)
def test_recomputation_is_counted_apart_and_stops_at_the_last_saved_tensor(
    models: dict[str, str],
    family: str,
    method: str,
    spared: Callable[[Shape], int],
    checkpointing: str,
) -> None:
    """The embeddings' output is made to require a gradient, and so do the first layer's inputs."""
    shape = Shape.of(CONFIGS[family])
    names = {"full": (), "lora:r=4": tuple(NAMES[family].values()), "qlora:r=4": (*FIRST, "o")}
    adapted = names.get(method, ("q", "v"))
    forward = shape.forward() + shape.layers * shape.adapters(4, adapted)
    backward = shape.full_backward()
    if method != "full":
        # QLoRA's norms are float32, and so are its heads, which no kernel takes in groups.
        kernel = 4 if method.startswith("qlora") else 5
        backward = shape.lora_backward(4, adapted, attention=kernel, input_grad=True)
    again = forward - shape.output
    if checkpointing == "non-reentrant":
        again -= shape.layers * spared(shape)
    found = of(flops(models[family], method=method, checkpointing=checkpointing))
    assert found == (forward, backward, again, 0)


KERNELS = [
    ("opt", "a100-80gb", {"attention": "eager"}, 4),
    ("opt", "a100-80gb", {"sdpa_backend": "math"}, 4),
    ("opt", "a100-80gb", {"sdpa_backend": "efficient"}, 5),
    ("opt", "h100", {"sdpa_backend": "cudnn"}, 5),
    ("llama", "h100", {"sdpa_backend": "cudnn"}, 5),
    ("opt", "a100-80gb", {"sdpa_backend": "flash"}, 5),
    ("llama", "a100-80gb", {"attention": "flash_attention_2"}, 5),
    ("llama", "sim:cpu", {"attention": "eager"}, 4),
]


@pytest.mark.parametrize(("family", "device", "fields", "products"), KERNELS)
def test_attention_is_counted_once_as_its_kernel_does_it(
    models: dict[str, str], family: str, device: str, fields: dict[str, object], products: int
) -> None:
    """Fused: two products, and five in the backward, which makes the scores again. Unfused: two
    and four."""
    shape = Shape.of(CONFIGS[family])
    found = of(flops(models[family], method="full", device=device, **fields))
    assert found == (shape.forward(), shape.full_backward(products), 0, 0)


@pytest.mark.parametrize("device", ["a100-80gb", "sim:cpu"])
def test_experts_count_the_rows_that_come_to_them(device: str) -> None:
    """Of Mixtral's eight, two a token, and a router that sees all."""
    shape = Shape.of({**CONFIGS["llama"], "intermediate_size": 96})
    sizes = {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.groups,
        "head_dim": shape.head,
        "vocab_size": shape.vocabulary,
    }
    override = tuple(f"{name}={value}" for name, value in sizes.items())
    expert = 3 * 2 * TOKENS * shape.hidden * shape.inner  # one each: what `shape.products` has
    router = 2 * TOKENS * shape.hidden * 8
    more = shape.layers * (expert + router)
    found = of(flops("mixtral-8x7b", model_override=override, method="full", device=device))
    assert found == (shape.forward() + more, shape.full_backward() + 2 * more, 0, 0)
