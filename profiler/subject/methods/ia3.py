"""IA3 (Liu et al., arXiv 2205.05638)."""

from __future__ import annotations

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register


@register("ia3")
class IA3(PeftMethod):
    """Learned vectors that scale keys, values and the feed-forward; targets are peft's defaults."""

    peft_type = "IA3"
    per_module = True
