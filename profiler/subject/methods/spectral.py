"""Updates that are trained in a transformed space."""

from __future__ import annotations

from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register


@register("fourierft")
class FourierFT(PeftMethod):
    """A few coefficients of a Fourier transform (Gao et al., arXiv 2405.03003)."""

    peft_type = "FOURIERFT"
    per_module = True


@register("waveft")
class WaveFT(PeftMethod):
    """A few coefficients of a wavelet transform (arXiv 2505.12532)."""

    peft_type = "WAVEFT"
    per_module = True


@register("c3a")
class C3A(PeftMethod):
    """Circular convolutions in blocks (Chen et al., arXiv 2407.19342)."""

    peft_type = "C3A"
    per_module = True
