"""Bottleneck adapters (Houlsby et al., arXiv 1902.00751; Pfeiffer et al., arXiv 2005.00247).

An adapter is `h + up(f(down(h)))` on the output of a sublayer, before the residual addition: after
attention and feed-forward (Houlsby), or after the feed-forward alone (Pfeiffer). Options and their
defaults are AdapterHub's (adapters/configuration/adapter_config.py, `SeqBnConfig` and
`DoubleSeqBnConfig`; the first is its default), the initial values those of its `mam_adapter`
(adapters/methods/modeling.py): the up-projection is zero, so that the adapted model begins as the
model it adapts.

Where it differs: a dropout that follows a sublayer comes after the adapter here, and Pfeiffer's
place behind BERT's layer norm does not exist in a decoder with norms before its sublayers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from profiler.errors import UnsupportedError, UsageError, unknown
from profiler.subject.methods.layers import ATTENTION_MODULES, decoder_layers, is_norm
from profiler.subject.methods.registry import Method, register

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

#: Name of the module that is added to the one whose output it adapts.
ADAPTER = "bottleneck_adapter"

#: Names that `transformers` gives to the linear layer that ends an attention or a feed-forward.
_ATTENTION_OUTPUTS = frozenset({"o_proj", "out_proj", "dense", "c_proj", "wo"})
_FEED_FORWARD_OUTPUTS = frozenset(
    {"down_proj", "fc2", "dense_4h_to_h", "c_proj", "fc_out", "w2", "wo"}
)

#: Non-linearity of each placement, as AdapterHub's config of it.
_PLACEMENTS = {"pfeiffer": "relu", "houlsby": "swish"}
_NON_LINEARITIES = ("relu", "gelu", "swish")


@register("adapter")
class Adapter(Method):
    """Bottleneck adapters on a frozen model.

    Options: `placement` (pfeiffer, houlsby); `reduction_factor`, the hidden size over the
    bottleneck's, or `bottleneck_size` itself; `non_linearity` (relu, gelu, swish).
    """

    defaults = {"placement": "pfeiffer", "reduction_factor": 16}

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any]:
        known = ("placement", "reduction_factor", "bottleneck_size", "non_linearity")
        for key in options:
            if key not in known:
                raise unknown("option of adapter:", key, known)
        placement = options["placement"]
        if placement not in _PLACEMENTS:
            raise unknown("placement", placement, _PLACEMENTS)
        non_linearity = options.get("non_linearity", _PLACEMENTS[placement])
        if non_linearity not in _NON_LINEARITIES:
            raise unknown("non_linearity", non_linearity, _NON_LINEARITIES)
        if {"reduction_factor", "bottleneck_size"} <= given:
            raise UsageError("adapter: give reduction_factor or bottleneck_size, not both")
        hidden = model.config.get_text_config().hidden_size
        if "bottleneck_size" in options:
            size = _positive("bottleneck_size", options["bottleneck_size"], whole=True)
        else:
            size = hidden / _positive("reduction_factor", options["reduction_factor"], whole=False)
        return {
            "placement": placement,
            "bottleneck_size": max(1, int(size)),
            "non_linearity": non_linearity,
            "target_modules": _targets(model, placement),
        }

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        assert config is not None
        model.requires_grad_(False)
        hidden = model.config.get_text_config().hidden_size
        # With another method's adapter around it already, paths are still those of the model.
        base: torch.nn.Module = getattr(model, "get_base_model", lambda: model)()
        for path in config["target_modules"]:
            target = base.get_submodule(path)
            adapter = _bottleneck(
                hidden,
                config["bottleneck_size"],
                config["non_linearity"],
                dtype=adapter_dtype,
                device=device,
            )
            # A child and a hook instead of a module around it: paths of the model stay, and the
            # output of a block of experts may be a tuple.
            target.add_module(ADAPTER, adapter)
            target.register_forward_hook(_adapt)
        return model


def _positive(name: str, value: Any, *, whole: bool) -> float:
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < float("inf"):
        kind = "an integer of 1 or more" if whole else "a number above 0"
        raise UsageError(f"adapter: {name} must be {kind}, not {value!r}")
    return value


def _bottleneck(
    hidden: int, size: int, non_linearity: str, *, dtype: torch.dtype, device: str
) -> torch.nn.Module:
    """`up(f(down(h)))`, both projections with a bias; `up` is zero."""
    import torch
    from torch import nn

    functions = {"relu": nn.ReLU, "gelu": nn.GELU, "swish": nn.SiLU}
    down = nn.Linear(hidden, size, dtype=dtype, device=device)
    up = nn.Linear(size, hidden, dtype=dtype, device=device)
    with torch.no_grad():
        nn.init.zeros_(down.bias)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
    return nn.Sequential(down, functions[non_linearity](), up)


def _adapt(module: torch.nn.Module, args: Any, output: Any) -> Any:
    """Forward hook of an adapted module: its output, or the first of several, plus the adapter's.

    The adapter computes in its own dtype, and what it adds has the output's, as in peft's layers.
    """
    hidden = output[0] if isinstance(output, tuple) else output
    adapter = module.get_submodule(ADAPTER)
    weight = next(adapter.parameters())
    adapted = hidden + adapter(hidden.to(weight.dtype)).to(hidden.dtype)
    return (adapted, *output[1:]) if isinstance(output, tuple) else adapted


def _targets(model: PreTrainedModel, placement: str) -> list[str]:
    """Paths of the modules whose outputs are adapted, layer by layer."""
    targets = []
    for path, layer in decoder_layers(model):
        inside, beside = _linears(layer)
        if placement == "houlsby":
            attention = [name for name in inside if _last(name) in _ATTENTION_OUTPUTS]
            if len(attention) != 1:
                raise UnsupportedError(
                    f"{type(model).__name__}: the attention of {path} has no one output projection"
                )
            targets.append(f"{path}.{attention[0]}")
        # With experts there are many output projections, or none that is a linear layer, or only
        # the deeper one of an expert that is shared: the sublayer's output is that of the block.
        outputs = [
            name for name in beside if _last(name) in _FEED_FORWARD_OUTPUTS and name.count(".") <= 1
        ]
        target = outputs[0] if len(outputs) == 1 else _block(layer)
        targets.append(f"{path}.{target}")
    return targets


def _linears(layer: torch.nn.Module) -> tuple[list[str], list[str]]:
    """Paths of a layer's linear modules, in its attention and beside it."""
    import torch
    from transformers.pytorch_utils import Conv1D

    inside: list[str] = []
    beside: list[str] = []
    for name, module in layer.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)):
            (inside if _attends(name) else beside).append(name)
    return inside, beside


def _block(layer: torch.nn.Module) -> str:
    """The child with the most parameters that is neither the attention nor a norm."""
    sizes = {
        name: sum(parameter.numel() for parameter in child.parameters())
        for name, child in layer.named_children()
        if not _attends(name) and not is_norm(child)
    }
    if not any(sizes.values()):
        raise UnsupportedError(f"{type(layer).__name__} has no feed-forward that can be adapted")
    return max(sizes, key=lambda name: sizes[name])


def _attends(path: str) -> bool:
    return path.partition(".")[0] in ATTENTION_MODULES


def _last(path: str) -> str:
    return path.rpartition(".")[2]
