"""An output head whose logits are never there as a whole: TRL's, by tiles.

`SFTTrainer` multiplies hidden states and output embedding tile by tile, folds each tile into the
statistics of a softmax and throws it away; the backward makes each tile again (trl/kernels/
chunked_logprob.py and `add_fused_lm_head` in trl/trainer/utils.py, TRL 1.16). What is written here
allocates what that does, in the same order; the tests hold it to the original, which is not needed
at run time.

On a CUDA device Triton kernels fold a tile in place and only positions with a label are scored.
Elsewhere every position is, and torch ops fold with temporaries of a tile's size in float32.
"""

from __future__ import annotations

import functools
import math
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula
from transformers.utils import ModelOutput

#: Size of a tile: `TOKEN_CHUNK_SIZE` (trl/kernels/chunked_logprob.py) and
#: `_CHUNKED_LOGPROB_CHUNK_SIZE` (trl/trainer/utils.py).
TOKENS = 4096
VOCABULARY = 32768

IGNORED = -100

_OPS = torch.library.Library("peft_profiler", "DEF")
_OPS.define("fold_logits(Tensor logits, Tensor targets, Tensor(a!)[] statistics) -> ()")
_OPS.define("fold_gradient(Tensor(a!) logits, Tensor targets, Tensor[] statistics) -> ()")
_OPS.define("add_product(Tensor left, Tensor right, Tensor(a!) total) -> ()")
# Kernels that write to what is there: simulated, they have nothing to do. The last is
# `torch.addmm(..., out_dtype=torch.float32, out=total)`, whose FLOPs torch cannot count.
_OPS.impl("fold_logits", lambda logits, targets, statistics: None, "Meta")
_OPS.impl("fold_gradient", lambda logits, targets, statistics: None, "Meta")
_OPS.impl("add_product", lambda left, right, total: None, "Meta")


@register_flop_formula(torch.ops.peft_profiler.add_product)
def _product_flops(left: tuple[int, ...], right: tuple[int, ...], *more: Any, **named: Any) -> int:
    return 2 * left[0] * left[1] * right[1]


@dataclass
class FusedOutput(ModelOutput):
    """What the forward returns. Each tensor but the loss is (batch, seq_len - 1), zero where the
    label is -100."""

    loss: torch.Tensor | None = None
    log_probs: torch.Tensor | None = None
    entropy: torch.Tensor | None = None
    is_top1: torch.Tensor | None = None
    label_mask: torch.Tensor | None = None
    aux_loss: torch.Tensor | None = None


class FusedHead(torch.nn.Module):
    """The head's product with the log-probabilities of the targets.

    A module of its own, so that who follows modules sees where the loss begins.
    """

    #: Read by `profiler.bench.modules`.
    computes_loss = True

    def __init__(self, settings: dict[str, Any], *, in_place: bool) -> None:
        super().__init__()
        self.settings = settings
        self.in_place = in_place

    def forward(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probability, entropy and "is the most likely" of each of N targets.

        Args:
            hidden: (N, hidden size).
            weight, bias: (vocabulary, hidden size) and (vocabulary,).
            targets: (N,).
        """
        outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = _LogProbs.apply(
            hidden, weight, bias, targets, self.settings, self.in_place
        )
        return outputs


def add(model: Any, *, cuda: bool) -> None:
    """Let `model(..., labels=labels, fused_lm_head=True)` return a `FusedOutput`.

    Args:
        model: a causal language model of `transformers`, without its adapter's wrapper.
        cuda: fold as on a CUDA device.
    """
    original = model.forward
    head = FusedHead(_logit_settings(model.config), in_place=cuda)

    @functools.wraps(type(model).forward)
    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any
    ) -> Any:
        if not fused_lm_head:
            if labels is not None:
                kwargs["labels"] = labels
            return original(*args, **kwargs)
        kwargs["use_cache"] = False
        states = self.base_model(*args, **kwargs)
        hidden = states.last_hidden_state[:, :-1]
        labels = labels[:, 1:]
        embedding = self.get_output_embeddings()
        mask = labels != IGNORED
        bias = getattr(embedding, "bias", None)
        if cuda:
            per_token = head(hidden[mask], embedding.weight, bias, labels[mask])
            log_probs, entropy, is_top1 = (
                item.new_zeros(mask.shape).masked_scatter(mask, item) for item in per_token
            )
        else:
            per_token = head(
                hidden.reshape(-1, hidden.size(-1)),
                embedding.weight,
                bias,
                labels.clamp(min=0).reshape(-1),
            )
            log_probs, entropy, is_top1 = (
                item.view(mask.shape).masked_fill(~mask, 0) for item in per_token
            )
        del per_token
        loss = -log_probs.sum() / mask.sum().clamp(min=1)
        aux_loss = None
        if kwargs.get("output_router_logits"):
            aux_loss = _balance(self, states, kwargs.get("attention_mask"))
            loss = loss + router_coefficient(self.config) * aux_loss
        return FusedOutput(
            loss=loss,
            log_probs=log_probs,
            entropy=entropy,
            is_top1=is_top1,
            label_mask=mask,
            aux_loss=aux_loss,
        )

    model.forward = types.MethodType(forward, model)


def router_coefficient(config: Any) -> float:
    """The weight of a mixture of experts' balancing loss, 0 for a model without experts."""
    text = config.get_text_config()
    if not hasattr(text, "output_router_logits"):
        return 0.0
    return float(getattr(text, "router_aux_loss_coef", 0.0))


def _balance(model: Any, states: Any, attention_mask: Any) -> torch.Tensor:
    """How unevenly the router spreads the tokens; every family takes Mixtral's."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = model.config.get_text_config()
    # A model of transformers 4 keeps the number itself.
    experts = getattr(model, "num_experts", None) or config.num_experts
    loss: torch.Tensor = load_balancing_loss_func(
        states.router_logits, experts, config.num_experts_per_tok, attention_mask
    )
    return loss


def _logit_settings(config: Any) -> dict[str, Any]:
    """Scale and soft cap of the logits, under the names that models give them."""
    text = config.get_text_config()
    scale = next(
        (
            value
            for value in (
                getattr(text, name, None)
                for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")
            )
            if value is not None
        ),
        None,
    )
    if scale is None and getattr(text, "logits_scaling", None) is not None:
        scaling = text.logits_scaling
        scale = scaling if text.model_type == "hyperclovax" else 1 / scaling
    return {
        "scale": 1.0 if scale is None else scale,
        "softcap": getattr(text, "final_logit_softcapping", None),
    }


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        settings: dict[str, Any],
        in_place: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        device = hidden.device
        count, vocabulary = hidden.shape[0], weight.shape[0]
        dtype = hidden.dtype
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        # Maximum; sums of exp, of x exp, of exp squared and of x; maximum before the target; the
        # target's logit. The fourth and fifth serve other trainers, and are there all the same.
        statistics = [
            torch.full((count,), start, device=device, dtype=torch.float32)
            for start in (-math.inf, 0.0, 0.0, 0.0, 0.0, -math.inf, 0.0)
        ]
        tile_memory = torch.empty((min(count, TOKENS), VOCABULARY), device=device, dtype=dtype)
        for tokens in _chunks(count, TOKENS):
            states = hidden[tokens].to(dtype)
            here = [item[tokens] for item in statistics]
            for words in _chunks(vocabulary, VOCABULARY):
                tile = _tile(tile_memory, states, weight[words].to(dtype), bias, words)
                if in_place:
                    torch.ops.peft_profiler.fold_logits(tile, targets[tokens], here)
                else:
                    _fold_logits(tile, targets[tokens], here, words.start, **settings)
            del states, here, tile
        largest, total, weighted, _, _, before, target = statistics
        log_z = largest + torch.log(total)
        log_probs = target - log_z
        entropy = log_z - weighted / total
        is_top1 = (target >= largest) & (target > before)
        ctx.save_for_backward(hidden, weight, bias, targets, log_z, entropy)
        ctx.dtype, ctx.settings, ctx.in_place = dtype, settings, in_place
        ctx.mark_non_differentiable(is_top1)
        return log_probs, entropy, is_top1

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor | None, *unused: Any
    ) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, log_z, entropy = ctx.saved_tensors
        assert grad is not None
        count, vocabulary = hidden.shape[0], weight.shape[0]
        # Sums of products are kept in float32, whatever is multiplied.
        hidden_grad, weight_grad, bias_grad = (
            torch.zeros(tensor.shape, device=hidden.device, dtype=torch.float32) if needed else None
            for tensor, needed in zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)
        )
        tile_memory = torch.empty(
            (min(count, TOKENS), VOCABULARY), device=hidden.device, dtype=ctx.dtype
        )
        grad = grad.float().contiguous()
        for tokens in _chunks(count, TOKENS):
            states = hidden[tokens].to(ctx.dtype)
            here = [log_z[tokens], entropy[tokens], grad[tokens]]
            for words in _chunks(vocabulary, VOCABULARY):
                rows = weight[words].to(ctx.dtype)
                tile = _tile(tile_memory, states, rows, bias, words)
                if ctx.in_place:
                    torch.ops.peft_profiler.fold_gradient(tile, targets[tokens], here)
                else:
                    _fold_gradient(tile, targets[tokens], here, words.start, **ctx.settings)
                if hidden_grad is not None:
                    _add_product(hidden_grad[tokens], tile, rows, in_place=ctx.in_place)
                if weight_grad is not None:
                    _add_product(weight_grad[words], tile.t(), states, in_place=ctx.in_place)
                if bias_grad is not None:
                    bias_grad[words] += tile.sum(dim=0, dtype=torch.float32)
            del states, here, rows, tile
        return (
            *(
                None if result is None else result.to(tensor.dtype)
                for result, tensor in zip(
                    (hidden_grad, weight_grad, bias_grad), (hidden, weight, bias), strict=True
                )
            ),
            None,
            None,
            None,
        )


def _chunks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _tile(
    memory: torch.Tensor,
    states: torch.Tensor,
    rows: torch.Tensor,
    bias: torch.Tensor | None,
    words: slice,
) -> torch.Tensor:
    """The logits of some tokens and words, in the memory of all tiles."""
    tile = memory[: states.shape[0], : rows.shape[0]]
    torch.mm(states, rows.t(), out=tile)
    if bias is not None:
        tile.add_(bias[words].to(tile.dtype))
    return tile


def _add_product(
    total: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, in_place: bool
) -> None:
    """`total += left @ right` in float32: cuBLAS adds 16-bit products so, a CPU copies them."""
    if in_place and left.dtype != torch.float32:
        torch.ops.peft_profiler.add_product(left, right, total)
    else:
        torch.addmm(total, left.float(), right.float(), out=total)


def _transformed(logits: torch.Tensor, scale: float, softcap: float | None) -> torch.Tensor:
    logits = logits * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits * 1.0  # the temperature, which others than SFTTrainer set


def _fold_logits(
    tile: torch.Tensor,
    targets: torch.Tensor,
    statistics: list[torch.Tensor],
    start: int,
    scale: float,
    softcap: float | None,
) -> None:
    """Add a tile to the statistics of an online softmax (Milakov and Gimelshein, 1805.02867)."""
    largest, total, weighted, _, _, before, target = statistics
    width = tile.shape[1]
    logits = _transformed(tile.float(), scale, softcap)
    local = targets - start
    earlier = torch.arange(width, device=tile.device) < local.unsqueeze(-1)
    # The first of equal maxima is the prediction, so what comes before the target counts apart.
    before.copy_(torch.maximum(before, logits.masked_fill(~earlier, -math.inf).amax(-1)))
    now = torch.maximum(largest, logits.amax(-1))
    shrink = torch.exp(largest - now)
    powers = torch.exp(logits - now.unsqueeze(-1))
    total.mul_(shrink).add_(powers.sum(-1))
    weighted.mul_(shrink).add_((powers * logits).sum(-1))
    largest.copy_(now)
    inside = (local >= 0) & (local < width)
    picked = logits.gather(-1, local.clamp(0, width - 1).unsqueeze(-1)).squeeze(-1)
    target.copy_(torch.where(inside, picked, target))


def _fold_gradient(
    tile: torch.Tensor,
    targets: torch.Tensor,
    statistics: list[torch.Tensor],
    start: int,
    scale: float,
    softcap: float | None,
) -> None:
    """Overwrite a tile of logits with the gradient that reaches them through the log-probability:
    one at the target, minus the softmax."""
    log_z, _, grad = statistics
    raw = tile.float() * scale
    if softcap is not None:
        bent = torch.tanh(raw / softcap)
        logits = softcap * bent * 1.0
    else:
        logits = raw * 1.0
    log_softmax = logits - log_z.unsqueeze(-1)
    softmax = torch.exp(log_softmax)
    result = torch.zeros_like(logits)
    end = start + tile.shape[1]
    at_target = torch.arange(start, end, device=tile.device) == targets.unsqueeze(-1)
    result += grad.unsqueeze(-1) * (at_target.float() - softmax)
    result = result * 1.0
    if softcap is not None:
        result = result * (1 - bent * bent)
    tile.copy_(result * scale)
