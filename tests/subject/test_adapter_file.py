"""The size of an adapter's file against files that were written, and against published sizes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import published_adapters
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode

from profiler.bench import weights
from profiler.errors import UnsupportedError
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject import methods
from profiler.subject.adapter_file import adapter_file_bytes, file_bytes
from profiler.subject.subject import Subject, build

#: Rows whose file differs from that of the adapter as it is before training, with the reason below.
EXPLAINED = {"adalora--llama-3.2-3B-rank32", "full-finetuning--llama-3.2-3B-lr_0.00001"}

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
]


@pytest.mark.parametrize(
    "row",
    [row for row in published_adapters.rows() if row.name not in EXPLAINED],
    ids=lambda row: row.name,
)
def test_a_published_file(row: published_adapters.Row) -> None:
    assert row.params().adapter_file_bytes == row.file_bytes


def test_the_published_size_of_full_fine_tuning_is_an_estimate_without_a_header() -> None:
    """`get_file_size` of the benchmark: number of parameters times their size; nothing is saved."""
    row = published_adapters.row("full")
    size = row.params().adapter_file_bytes
    assert row.file_bytes == 2 * row.total
    # What is missing there: eight bytes, and about a hundred for each of 254 tensors.
    assert size is not None
    assert 254 * 80 < size - row.file_bytes < 254 * 160


def test_the_published_file_of_adalora_holds_the_ranks_that_were_kept() -> None:
    """`target_r` 32 of `init_r` 64 in each of 28 layers' q_proj and v_proj is kept on average.

    Which ranks, the importance scores decided. A rank of q_proj is larger than one of v_proj, so
    the size tells how they were divided: 701 and 1,091, and only so.
    """
    row = published_adapters.row("adalora")
    sizes = [
        file_bytes(
            {
                f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_{part}": torch.empty(
                    shape, device="meta"
                )
                for name, features, kept in (("q_proj", 3072, q), ("v_proj", 1024, 2 * 28 * 32 - q))
                for layer in range(28)
                for rank in [kept // 28 + (layer < kept % 28)]
                for part, shape in (
                    ("A", (rank, 3072)),
                    ("B", (features, rank)),
                    ("E", (rank, 1)),
                )
            }
        )
        for q in range(690, 710)
    ]
    assert [690 + n for n, size in enumerate(sizes) if abs(size - row.file_bytes) < 1024] == [701]
    # Before training all of `init_r` is there.
    size = row.params().adapter_file_bytes
    assert size is not None
    assert 1.9 < size / row.file_bytes < 2.2


def in_memory(cell: Any) -> Subject:
    """A cell's subject with real weights."""
    return build(cell, device="cpu", fill=partial(weights.fill, seed=0, device="cpu"))


def written(model: Any, folder: Path) -> int:
    """Size of what is really saved of a model."""
    folder.mkdir()
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder)
        (file,) = folder.rglob("adapter_model.safetensors")
    else:
        file = folder / "trained.safetensors"
        trained = {name: item for name, item in model.named_parameters() if item.requires_grad}
        save_file(trained, file, metadata={"format": "pt"})
    return file.stat().st_size


#: Models to put a method on, the first that takes it. BitFit needs biases, and the default block
#: sizes of some methods a width of 256.
MODELS = [
    ("llama", ()),
    ("bloom", ()),
    ("llama", ("hidden_size=256", "intermediate_size=512", "num_key_value_heads=4")),
]


@pytest.mark.parametrize("name", methods.names())
def test_it_is_the_size_of_the_file_that_each_method_writes(name: str, tmp_path: Path) -> None:
    paths = tiny.write(tmp_path)
    refusal = ""
    for family, overrides in MODELS:
        spec = RunSpec(model=paths[family], model_override=overrides, method=name, seq_len=16)
        cell = resolve(spec)
        if cell.unsupported:
            refusal = cell.unsupported
            continue
        try:
            real = in_memory(cell)
        except UnsupportedError as error:
            refusal = str(error)
            continue
        size = written(real.model, tmp_path / "saved")
        assert real.params.adapter_file_bytes == size
        assert build(cell).params.adapter_file_bytes == size
        return
    pytest.skip(refusal)


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "LORA", "modules_to_save": ["lm_head"]},
        {"peft_type": "LORA", "target_modules": ["embed_tokens", "q_proj"]},
        {"peft_type": "LORA", "target_modules": ".*(embed_tokens|v_proj)"},
        {"peft_type": "LORA", "trainable_token_indices": [3, 4]},
        {"peft_type": "LORA", "bias": "all", "use_dora": True},
        {"peft_type": "LORA", "layer_replication": [[0, 2], [1, 2]]},
        {"peft_type": "VERA", "r": 8, "save_projection": True},
        {"peft_type": "VERA", "r": 8, "save_projection": False},
        {"peft_type": "VBLORA", "vector_length": 8, "num_vectors": 9},
        {
            "peft_type": "VBLORA",
            "vector_length": 8,
            "num_vectors": 9,
            "save_only_topk_weights": True,
        },
        {"peft_type": "P_TUNING", "encoder_hidden_size": 24, "num_virtual_tokens": 5},
        {
            "peft_type": "P_TUNING",
            "encoder_hidden_size": 24,
            "num_virtual_tokens": 5,
            "encoder_reparameterization_type": "LSTM",
            "encoder_dropout": 0.5,
        },
        {
            "peft_type": "PREFIX_TUNING",
            "num_virtual_tokens": 5,
            "prefix_projection": True,
            "encoder_hidden_size": 24,
        },
    ],
    ids=lambda config: "-".join(map(str, config.values())),
)
def test_it_is_the_size_of_the_file_that_a_config_writes(
    config: dict[str, Any], tmp_path: Path
) -> None:
    import peft

    cls = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[config["peft_type"]]
    options = {key: value for key, value in config.items() if key != "peft_type"}
    model = real_model(tmp_path)
    with torch.random.fork_rng():
        adapted = peft.get_peft_model(model, cls(task_type="CAUSAL_LM", **options))
    size = adapter_file_bytes(adapted)
    assert size == written(adapted, tmp_path / "saved")


def real_model(folder: Path) -> Any:
    """A small Llama with tied embeddings, in memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    (folder / "base").mkdir()
    config = {**tiny.CONFIGS["llama"], "tie_word_embeddings": True}
    file = folder / "base" / "config.json"
    file.write_text(json.dumps(config))
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(file))


def test_two_adapters_are_two_files(tmp_path: Path) -> None:
    import peft

    model = peft.get_peft_model(real_model(tmp_path), peft.LoraConfig(r=4, task_type="CAUSAL_LM"))
    one = adapter_file_bytes(model)
    model.add_adapter("second", peft.LoraConfig(r=8, task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path / "saved")
    files = list((tmp_path / "saved").rglob("adapter_model.safetensors"))
    assert len(files) == 2
    assert adapter_file_bytes(model) == sum(file.stat().st_size for file in files) > 2 * one


class RealBytes(TorchDispatchMode):
    """Counts the bytes of what ops return in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, tuple | list) else [out]:
            if isinstance(item, torch.Tensor) and not isinstance(item, FakeTensor):
                self.bytes += item.untyped_storage().nbytes() if not item.is_meta else 0
        return out


@pytest.mark.parametrize(
    "method",
    [
        "lora",
        "full",
        "vera",
        "cpt",
        "prompt-tuning",
        "p-tuning:encoder_reparameterization_type=LSTM",
    ],
)
def test_asking_computes_nothing_and_leaves_no_trace(method: str, tmp_path: Path) -> None:
    model = in_memory(resolve(RunSpec(model=tiny.write(tmp_path)["llama"], method=method))).model
    before = {name: (item, item.clone()) for name, item in model.state_dict(keep_vars=True).items()}
    drawn = torch.get_rng_state()
    with RealBytes() as real:
        size = adapter_file_bytes(model)
    assert real.bytes == 0
    assert size > 0
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, item in model.state_dict(keep_vars=True).items():
        assert item is before[name][0]
        assert torch.equal(item, before[name][1])
    assert adapter_file_bytes(model) == size


def test_a_quantised_model_has_the_same_adapter(tmp_path: Path) -> None:
    model = tiny.write(tmp_path)["llama"]
    sizes = {
        build(
            resolve(RunSpec(model=model, method="lora", quantization=quantization))
        ).params.adapter_file_bytes
        for quantization in ("none", "nf4", "nf4-dq")
    }
    assert len(sizes) == 1


@pytest.mark.parametrize(("dtype", "nbytes"), [("float32", 4), ("bfloat16", 2)])
def test_the_adapters_dtype_is_the_files(dtype: str, nbytes: int, tmp_path: Path) -> None:
    model = tiny.write(tmp_path)["llama"]
    params = build(resolve(RunSpec(model=model, method="lora", adapter_dtype=dtype))).params
    assert params.adapter_file_bytes is not None
    header = params.adapter_file_bytes - nbytes * params.trainable
    assert 0 < header < 200 * 2 * 7 * 2  # two layers of seven adapted matrices, each A and B


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda name: name != "__metadata__"
)
tensors = st.dictionaries(
    names,
    st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 12), max_size=4)),
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(tensors)
def test_the_size_is_that_of_the_librarys_own_bytes(
    described: dict[str, tuple[torch.dtype, list[int]]],
) -> None:
    real = {name: torch.zeros(shape, dtype=dtype) for name, (dtype, shape) in described.items()}
    meta = {name: item.to("meta") for name, item in real.items()}
    expected = len(save(real, {"format": "pt"}))
    assert file_bytes(real) == expected
    assert file_bytes(meta) == expected
