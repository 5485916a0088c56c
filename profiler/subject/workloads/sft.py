"""The loss of TRL's `SFTTrainer`, and the metrics that it computes beside it at every step.

trl/trainer/sft_trainer.py, `compute_loss`. What is read as a number on the host is computed, not
read: reading allocates nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from profiler.errors import UnsupportedError
from profiler.subject.workloads import fused_head

if TYPE_CHECKING:
    from profiler.subject.workloads.train import TrainStep

#: Rows of logits whose entropy is taken at once (`entropy_from_logits`, trl/trainer/utils.py).
_ROWS = 128


class ChunkedLoss:
    """As TRL 1.16 does it: the log-probabilities come from a head that keeps no logits."""

    def __init__(self, model: Any, *, cuda: bool) -> None:
        get_base = getattr(model, "get_base_model", None)
        base = get_base() if get_base is not None else model
        head = base.get_output_embeddings()
        if hasattr(head, "base_layer"):
            raise UnsupportedError(
                "SFTTrainer refuses an adapter on the output head, whose weights it multiplies "
                "itself; leave it out of target_modules or use --stack trainer"
            )
        fused_head.add(base, cuda=cuda)
        self.balancing = fused_head.router_coefficient(base.config)

    def forward(self, step: TrainStep) -> Any:
        more = {"output_router_logits": True} if self.balancing else {}
        return step.model(**step.batch, **more, use_cache=False, fused_lm_head=True)

    def loss(self, step: TrainStep, outputs: Any) -> torch.Tensor:
        """The mean over the batch's labels; metrics while the outputs are there."""
        per_token = -outputs.log_probs
        items = count_labels(step) if step.counts_items else outputs.label_mask.sum()
        loss = per_token.sum() / torch.as_tensor(items).clamp(min=1)
        if step.counts_items:
            loss = loss * 1  # the number of processes
        if self.balancing:
            passes = step.accumulation if step.counts_items else 1
            loss = loss + self.balancing * outputs.aux_loss / passes
        valid = outputs.label_mask.sum()
        entropy = outputs.entropy.detach().sum()
        correct = outputs.is_top1.sum()
        del per_token
        _ratios(step, valid, entropy, correct)
        return loss


class FullLoss:
    """As TRL did it before: the model's own loss, then entropy and accuracy of the logits.

    trl/trainer/sft_trainer.py and `entropy_from_logits` as of github.com/huggingface/trl at
    00313f21920d, which is before the fused head.
    """

    def forward(self, step: TrainStep) -> Any:
        if not step.counts_items:
            return step.model(**step.batch, use_cache=False)
        return step.model(**step.batch, use_cache=False, num_items_in_batch=count_labels(step))

    def loss(self, step: TrainStep, outputs: Any) -> torch.Tensor:
        with torch.no_grad():
            logits = outputs.logits
            entropy = _entropy(logits)
            # Virtual tokens have logits and no label.
            virtual = logits.size(1) - step.batch["labels"].size(1)
            mask = step.batch["attention_mask"]
            mean = torch.sum(entropy[:, virtual:] * mask) / mask.sum()
            del entropy, mean
            shifted = logits[..., :-1, :].contiguous()
            labels = step.batch["labels"][..., 1:].contiguous()
            predictions = shifted[:, virtual:].argmax(dim=-1)
            labelled = labels != fused_head.IGNORED
            correct = (predictions == labels) & labelled
            _ratios(step, labelled.sum(), correct.sum())
        loss: torch.Tensor = outputs.loss
        return loss


def count_labels(step: TrainStep) -> torch.Tensor:
    """Labels that a position predicts: all but the first of each sequence
    (`Trainer._get_num_items_in_batch`, transformers/trainer.py)."""
    return step.batch["labels"][..., 1:].ne(fused_head.IGNORED).sum()


def _ratios(step: TrainStep, valid: torch.Tensor, *sums: torch.Tensor) -> None:
    for value in sums:
        value.sum() / valid.sum()
    step.batch["attention_mask"].sum().sum()


def _entropy(logits: torch.Tensor) -> torch.Tensor:
    """Of each position's distribution; (batch, seq_len)."""
    parts = []
    for rows in logits.reshape(-1, logits.size(-1)).split(_ROWS, dim=0):
        log_probs = torch.nn.functional.log_softmax(rows, dim=-1)
        parts.append(-(torch.exp(log_probs) * log_probs).sum(-1))
    return torch.cat(parts, dim=0).reshape(logits.shape[:-1])
