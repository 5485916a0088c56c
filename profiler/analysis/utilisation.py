"""Model FLOPs utilisation: how much of a device's arithmetic a step's model needed.

Chowdhery et al., "PaLM: Scaling language modeling with pathways", arXiv 2204.02311, appendix B:
the FLOPs that the model's forward and backward need, over what the device could have done in the
step's time. What checkpointing computes again is not needed and not counted (their hardware FLOPs
utilisation counts it), attention is counted by its whole square.

Theirs is of full training, 6 N FLOPs a token and attention's; here it is what the step's own ops
counted (`profiler.record.Flops`), so that frozen weights, which have no gradient, make no
utilisation. A fused attention's backward makes its scores again, which is counted with the rest.
"""

from __future__ import annotations

from profiler.hardware.devices import Device
from profiler.record import Flops
from profiler.spec import RunSpec


def model_flops_utilisation(flops: Flops, seconds: float, peak: float | None) -> float | None:
    """The share of a device's peak, from 0 to 1.

    Args:
        flops: of one step.
        seconds: that the step takes.
        peak: FLOP/s of the device's products in the step's compute dtype, None if not known.
    """
    if not peak or seconds <= 0:
        return None
    return (flops.total - flops.phases.get("recompute", 0)) / (peak * seconds)


def on_device(flops: Flops, seconds: float, spec: RunSpec, device: Device | None) -> float | None:
    """The same, of a resolved spec's step on a GPU of the table; None for another device."""
    peak = device.peak_flops(compute_dtype(spec)) if device is not None else None
    return model_flops_utilisation(flops, seconds, peak)


def compute_dtype(spec: RunSpec) -> str:
    """The dtype that most products of a resolved spec are in: autocast's, else quantised weights'
    compute dtype, else the weights' own."""
    if spec.autocast not in (None, "none"):
        return str(spec.autocast)
    if spec.quantization not in (None, "none"):
        return spec.compute_dtype or spec.weights_dtype
    return spec.weights_dtype
