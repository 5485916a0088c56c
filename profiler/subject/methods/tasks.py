"""Methods that are told the task of each sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register

if TYPE_CHECKING:
    import torch


class _Tasks(PeftMethod):
    """All sequences of the batch are of the first task."""

    def inputs(self, config: Any, batch_size: int) -> dict[str, torch.Tensor]:
        import torch

        return {"task_ids": torch.zeros(batch_size, dtype=torch.int64)}


@register("poly")
class Poly(_Tasks):
    """A router mixes several LoRA by task (Ponti et al., arXiv 2202.13914)."""

    peft_type = "POLY"

    def refuses(self, *, checkpointing: str) -> str:
        """peft (peft/tuners/poly/model.py) hands the tasks to the layers for the forward alone;
        what is computed again in the backward raises."""
        if checkpointing == "none":
            return ""
        return "peft's Poly does not work with gradient checkpointing; use --checkpointing none"


@register("multitask-prompt-tuning")
class MultitaskPromptTuning(_Tasks):
    """A shared prompt times a task's own low-rank one (Wang et al., arXiv 2303.02861)."""

    peft_type = "MULTITASK_PROMPT_TUNING"
    defaults = {"num_virtual_tokens": 20}
