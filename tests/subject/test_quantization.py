"""Packed weights and what is beside them: tensor by tensor as bitsandbytes makes them."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from profiler.bench import weights
from profiler.execute import run
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject import models
from profiler.subject.models import ModelSource, dtype_keyword
from profiler.subject.quantization import quant_state_tensors, quantize
from profiler.subject.subject import build

QUANTIZATIONS = ("nf4", "nf4-dq", "fp4", "fp4-dq", "int8")

#: Blocks of 64 numbers, and of 256 of their scales, divide none of these sizes evenly. GPT-2's
#: weights lie the other way round before they are packed.
UNEVEN = {
    "opt": {
        "model_type": "opt",
        "hidden_size": 36,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "ffn_dim": 500,
        "vocab_size": 50,
        "max_position_embeddings": 16,
        "word_embed_proj_dim": 36,
    },
    "llama": {
        "model_type": "llama",
        "hidden_size": 36,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 101,
        "vocab_size": 50,
        "max_position_embeddings": 16,
    },
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 36,
        "n_layer": 1,
        "n_head": 2,
        "n_positions": 16,
        "vocab_size": 50,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
}


def loaded(family: str, quantization: str, folder: Path) -> torch.nn.Module:
    """Real weights, saved, and loaded and quantised by the libraries themselves."""
    source = ModelSource(family, UNEVEN[family])
    dtype = {dtype_keyword(): torch.bfloat16}
    AutoModelForCausalLM.from_config(models.config(source), **dtype).save_pretrained(folder)
    if quantization == "int8":
        settings = BitsAndBytesConfig(load_in_8bit=True)
    else:
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quantization[:3],
            bnb_4bit_use_double_quant="dq" in quantization,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, device_map="cpu", **dtype
    )
    assert isinstance(model, torch.nn.Module)
    return model


def built(family: str, quantization: str, device: str) -> torch.nn.Module:
    source = ModelSource(family, UNEVEN[family])
    model = models.build(source, dtype=torch.bfloat16, device=device)
    quantize(model, quantization, compute_dtype=torch.bfloat16)
    if device != "meta":
        weights.fill(model, seed=0, device=device)
    return model


def facts(model: torch.nn.Module) -> dict[str, Any]:
    """Class, size and settings of every parameter and of every tensor beside it."""
    table: dict[str, Any] = {}
    for path, parameter in model.named_parameters():
        table[path] = (type(parameter).__name__, *size(parameter))
        for name, tensor, holder in quant_state_tensors(parameter):
            settings = [getattr(holder, key, None) for key in ("blocksize", "dtype", "quant_type")]
            table[f"{path}.{name}"] = (*size(tensor), *settings, getattr(holder, "shape", None))
    for path, module in model.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear8bitLt):
            table[path] = (module.state.threshold, module.state.has_fp16_weights)
    return table


def size(tensor: torch.Tensor) -> tuple[Any, ...]:
    return (tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.untyped_storage().nbytes())


def storages(model: torch.nn.Module) -> dict[str, int]:
    """Bytes by kind of tensor; what shares a storage counts once."""
    seen: set[int] = set()
    total: Counter[str] = Counter()
    for parameter in model.parameters():
        packed = type(parameter) is not torch.nn.Parameter
        named = [("packed" if packed else "plain", parameter, None)]
        for name, tensor, _ in [*named, *quant_state_tensors(parameter)]:
            storage = tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                total[name] += storage.nbytes()
    return dict(total)


@pytest.mark.parametrize("family", UNEVEN)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_every_tensor_is_what_bitsandbytes_makes(
    tmp_path: Path, quantization: str, family: str
) -> None:
    real = loaded(family, quantization, tmp_path)
    for device in ("meta", "cpu"):
        ours = built(family, quantization, device)
        assert facts(ours) == facts(real)
        assert storages(ours) == storages(real)


#: (out, in) of each linear layer of a decoder layer, and how many layers there are.
OPT_6_7B = ([(4096, 4096)] * 4 + [(16384, 4096), (4096, 16384)], 32)
LLAMA_3_2_3B = (
    [(3072, 3072)] * 2 + [(1024, 3072)] * 2 + [(8192, 3072)] * 2 + [(3072, 8192)],
    28,
)


def formula(quantization: str, out: int, inner: int) -> dict[str, int]:
    """Bytes of a packed weight and of what is beside it, as bitsandbytes 0.50 lays them out.

    int8 (nn/modules.py, `Int8Params._quantize`): a byte for each number, a float32 for each row.
    4 bits (functional.py, `quantize_4bit`): two numbers to a byte, a float32 for each block of 64,
    and 16 float32 values of the code. Double quantization makes the blocks' scales uint8 after it
    has taken their mean from them (float32, `offset`), and quantises them again with a float32 for
    each 256 and a code of 256 float32 values (`quantize_blockwise`). No weight shares its codes.
    """
    numbers = out * inner
    if quantization == "int8":
        return {"packed": numbers, "SCB": 4 * out}
    blocks = -(-numbers // 64)
    sizes = {"packed": -(-numbers // 2), "code": 4 * 16}
    if not quantization.endswith("-dq"):
        return {**sizes, "absmax": 4 * blocks}
    nested = {"nested_absmax": 4 * -(-blocks // 256), "nested_code": 4 * 256}
    return {**sizes, "absmax": blocks, "offset": 4, **nested}


@pytest.mark.parametrize(
    ("name", "layer", "count"), [("opt-6.7b", *OPT_6_7B), ("llama-3.2-3b", *LLAMA_3_2_3B)]
)
@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_large_models_follow_the_formula(
    quantization: str, name: str, layer: list[tuple[int, int]], count: int
) -> None:
    model = models.build(models.load(name), dtype=torch.bfloat16)
    quantize(model, quantization, compute_dtype=torch.bfloat16)
    found = storages(model)
    del found["plain"]
    expected: Counter[str] = Counter()
    for out, inner in layer * count:
        expected.update(formula(quantization, out, inner))
    assert found == dict(expected)


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_records_quantization_state_is_the_sum(quantization: str) -> None:
    spec = RunSpec(
        model="opt-125m",
        model_override=("num_hidden_layers=2",),
        quantization=quantization,
        seq_len=4,
        device="sim:cpu",
    )
    record = run(spec)
    assert record.status == "ok", record.error
    state = Counter(storages(build(resolve(spec)).model))
    del state["plain"], state["packed"]
    assert record.memory.at_peak["quantization_state"] == state.total()


def test_a_filled_8_bit_weight_stands_for_ordinary_numbers() -> None:
    model = built("llama", "int8", "cpu")
    numbers = torch.cat(
        [
            bitsandbytes.functional.int8_vectorwise_dequant(weight.data, weight.SCB).flatten()
            for weight in model.parameters()
            if isinstance(weight, bitsandbytes.nn.Int8Params)
        ]
    )
    assert float(numbers.std()) == pytest.approx(weights.DEVIATION, rel=0.05)


def test_gradients_reach_the_adapter_and_no_packed_weight() -> None:
    cell = resolve(
        RunSpec(
            model="opt-125m",
            model_override=("num_hidden_layers=1",),
            quantization="int8",
            kbit_prepare="peft",
            device="cpu",
        )
    )
    subject = build(cell, device="cpu", fill=partial(weights.fill, seed=0, device="cpu"))
    ids = torch.arange(8)[None]
    subject.model(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in subject.model.named_parameters():
        assert (parameter.grad is not None) == (name in subject.adapter_names)
        # B is zero at first, so that A has a gradient of zeros.
        if "lora_B" in name:
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()
