"""Random weights, fast: one random block, repeated.

`normal_` over 6.7 billion parameters takes a minute, quantising them several; a step's memory and
time do not depend on the values, as long as they are ordinary ones.
"""

from __future__ import annotations

from typing import Any

import torch

#: Numbers in the block that is repeated.
BLOCK = 1 << 20

#: Standard deviation of a matrix's entries: `initializer_range` of the GPT-2 and Llama families.
DEVIATION = 0.02


def fill(model: torch.nn.Module, *, seed: int, device: str) -> None:
    """Give every parameter memory and values: matrices normal, scales one, biases zero.

    Packed weights get random contents, and scales as large as quantising such matrices gives.
    The same seed gives the same model.
    """
    import bitsandbytes as bnb

    generator = torch.Generator().manual_seed(seed)
    normal = torch.empty(BLOCK).normal_(0.0, DEVIATION, generator=generator)
    nibbles = torch.randint(256, (BLOCK,), generator=generator, dtype=torch.uint8)
    done: set[int] = set()
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None or id(parameter) in done:
                continue
            if isinstance(parameter, bnb.nn.Params4bit):
                parameter = _packed(module, parameter, nibbles, device)
            elif isinstance(parameter, bnb.nn.Int8Params):
                parameter = _int8(parameter, normal, device)
            else:
                if parameter.is_meta:
                    data = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
                    parameter = torch.nn.Parameter(data, requires_grad=parameter.requires_grad)
                with torch.no_grad():
                    if parameter.dim() >= 2:
                        tile(parameter, normal)
                    else:
                        parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            module._parameters[name] = parameter
            done.add(id(parameter))


def tile(tensor: torch.Tensor, block: torch.Tensor) -> None:
    """Fill a contiguous tensor with copies of a block, the last one cut."""
    flat = tensor.view(-1)
    block = block.to(device=flat.device, dtype=flat.dtype)
    for start in range(0, flat.numel(), block.numel()):
        part = flat[start : start + block.numel()]
        part.copy_(block[: part.numel()])


def _int8(parameter: Any, normal: torch.Tensor, device: str) -> Any:
    """An 8-bit weight in memory, as `Int8Params._quantize` leaves it: `CB` is the weight itself,
    `SCB` each row's largest magnitude. A row of a few thousand normal numbers has it at about 3.5
    deviations; larger ones of the block are cut."""
    import bitsandbytes as bnb

    scale = 3.5 * DEVIATION
    data = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
    tile(data, (normal * (127 / scale)).round().clamp(-127, 127))
    scales = torch.full(parameter.SCB.shape, scale, dtype=parameter.SCB.dtype, device=device)
    return bnb.nn.Int8Params(
        data,
        requires_grad=False,
        has_fp16_weights=parameter.has_fp16_weights,
        CB=data,
        SCB=scales,
    )


def _packed(module: Any, parameter: Any, nibbles: torch.Tensor, device: str) -> Any:
    """A packed weight in memory, with a quantisation state of bitsandbytes' own making.

    The state of a few numbers is made by quantising them; then its scales are given the weight's
    size. What is large is filled, what is small is real.
    """
    import bitsandbytes as bnb

    meta = parameter.quant_state
    sample = torch.linspace(-1, 1, 4 * meta.blocksize, device=device, dtype=meta.dtype)
    _, state = bnb.functional.quantize_4bit(
        sample,
        blocksize=meta.blocksize,
        compress_statistics=meta.nested,
        quant_type=meta.quant_type,
    )
    state.shape = meta.shape
    # The largest of 64 normal numbers is at about 2.4 deviations.
    scale = 2.4 * DEVIATION
    if meta.nested:
        state.absmax = torch.zeros(meta.absmax.shape, dtype=meta.absmax.dtype, device=device)
        tile(state.absmax, nibbles)
        nested = torch.full(meta.state2.absmax.shape, scale / 10, device=device)
        state.state2.absmax = nested
        state.offset = torch.tensor(scale, device=device)
    else:
        state.absmax = torch.full(meta.absmax.shape, scale, device=device)
    data = torch.empty(parameter.shape, dtype=parameter.dtype, device=device)
    tile(data, nibbles)
    packed = bnb.nn.Params4bit(
        data,
        requires_grad=False,
        quant_state=state,
        blocksize=parameter.blocksize,
        compress_statistics=parameter.compress_statistics,
        quant_type=parameter.quant_type,
        quant_storage=parameter.quant_storage,
        module=module,
        bnb_quantized=True,
    )
    module.quant_state = state
    return packed
