"""Llama-3.2-3B on an L40S: thirty methods as peft's own comparison trains them, step by step.

The configurations are those of huggingface/peft, method_comparison/MetaMathQA, which the package
ships for `python -m profiler.validate`: batches of 4, a plain loop that keeps outputs and loss
bound, adapters in 32 bits over 16-bit weights, an evaluation of the base model before the training.
Here each method takes one step on 4 sequences of 210 tokens, the published mean, so that their
memory can be held against each other; the validation runs whole histories of lengths, and holds
those against the published maxima.

An older table of the same comparison (LoRA r32 11.8 GB, IA3 12.0, prompt tuning with 200 virtual
tokens 15.3) states no lengths either. Its three methods are among the thirty; at the mean length
they reserve 12.2, 11.9 and 15.2 GB.
"""

from __future__ import annotations

from profiler import RunSpec
from profiler.validation import cases, compare

#: What the report compares the others with.
BASELINE = "lora--llama-3.2-3B-rank32"

GROUP = "peft-metamathqa"
RUN = "step"

#: One of each kind, for a first look.
QUICK = ("lora--llama-3.2-3B-rank32", "ia3--llama-3.2-3B-default")


def study(quick: bool = False) -> list[RunSpec]:
    """The thirty methods on one GPU; quick: two of them."""
    group = cases.group(GROUP)
    chosen = [case for case in group.cases if not quick or case.id in QUICK]
    runs = [run for run in group.runs if run.name == RUN]
    return [entry.spec for entry in compare.entries(group, chosen, runs)]
