"""What cards reach of their datasheets, and what a host takes to keep one busy.

The same numbers for every method and model, and for every card but for its generation. Those
marked *fitted* are the ones that predict the step times of eight published runs on one L40S best
(`profiler/validation/cases/peft_metamathqa.toml` names them); the others are what
microbenchmarks give, rounded.
"""

from __future__ import annotations

from profiler.hardware.ceilings import Ceilings, Issue
from profiler.hardware.devices import Device

#: Cards with published step times: how many, and how far off the model is, in the median and at
#: most (`python -m profiler.validate`). Eight of the L40S's are fitted.
VERIFIED_ON = {"l40s": (30, 0.02, 0.11), "t4": (8, 0.08, 0.11), "a100-80gb": (2, 0.04, 0.07)}

#: Share of a peak that the best tiles reach where power does not limit them.
PRODUCTS = 0.8
#: Share of the power limit that products get; memory and the board take the rest.
POWER = 0.8
#: Joules per FLOP of the tensor cores, by the compute capability's first number: a generation of
#: chips on its process. That of 8 (A100, RTX 30 and 40, L4, L40S) is fitted; the others are what
#: is known of cards' rates in large products, roughly: a T4 at 22 TFLOP/s (chosen with its
#: published steps in view), an H100 at 780, a B200 at 1,750.
TENSOR_JOULES = {7: 2.5e-12, 8: 1.27e-12, 9: 0.72e-12, 10: 0.45e-12, 12: 0.8e-12}
#: How much more a FLOP in fp32 takes without tensor cores. Fitted.
FLOAT32_FACTOR = 4.9
#: What fused attention reaches of what products do, its softmax included.
ATTENTION = 0.6
#: Share of the memory's peak bandwidth that a large copy reaches.
MEMORY = 0.85
#: Bytes/s between a multiprocessor and the L2 cache.
CACHE_PER_MULTIPROCESSOR = 48e9
#: Seconds that a kernel takes at least, from its start to the next one's.
KERNEL = 2.5e-6

#: A host's seconds. Fitted: the ops of each phase, a module's call, and what surrounds a step; the
#: others are what such calls usually take.
HOST = Issue(
    forward_op=13.5e-6,
    backward_op=15.5e-6,
    optimizer_op=3e-6,
    view=3e-6,
    value=0.5e-6,
    module=17e-6,
    item=1.5e-6,
    launch=3e-6,
    step=1.8e-3,
)


def ceilings(device: Device) -> Ceilings:
    """What a card is taken to reach."""
    joules = TENSOR_JOULES[device.compute_capability[0]]
    power = POWER * device.power_limit
    float32 = min(PRODUCTS * device.float32_flops, power / (FLOAT32_FACTOR * joules))
    rates = {"float32": float32}
    for dtype, share in (("bfloat16", 1.0), ("float16", 1.0), ("int8", 0.5)):
        peak = getattr(device, f"{dtype}_flops")
        if peak:  # an int8 operation takes half of a FLOP's energy, as its rate is twice as high
            rates[dtype] = min(PRODUCTS * peak, power / (share * joules))
    return Ceilings(
        name=device.key,
        source="datasheet",
        matmul_flops=rates,
        attention_flops={dtype: ATTENTION * rate for dtype, rate in rates.items()},
        vector_flops={"float32": float32},
        multiprocessors=device.sm_count,
        bandwidth=device.memory_bandwidth * MEMORY,
        cache_bytes=device.l2_bytes,
        cache_bandwidth=device.sm_count * CACHE_PER_MULTIPROCESSOR,
        kernel_seconds=KERNEL,
        issue=HOST,
        queued=True,
    )
