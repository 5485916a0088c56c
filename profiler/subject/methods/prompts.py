"""Soft prompts: virtual tokens that are trained while the model is frozen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import UsageError, unknown
from profiler.subject.methods.peft_method import PeftMethod
from profiler.subject.methods.registry import register

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@register("prompt-tuning")
class PromptTuning(PeftMethod):
    """Trained embeddings before the input (Lester et al., arXiv 2104.08691).

    With `prompt_tuning_init=TEXT` they begin as the embeddings of a text, cut or repeated to
    `num_virtual_tokens` (peft/tuners/prompt_tuning/model.py). So the text decides initial values
    and nothing else, least of all a size. A `tokenizer_name_or_path` that is a folder is used by
    peft as always; any other (a Hub id, or none at all) is never fetched: the initial values are
    then random ones.
    """

    peft_type = "PROMPT_TUNING"
    defaults = {"num_virtual_tokens": 20}

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any]:
        options = dict(options)
        if "prompt_tuning_init" in options:
            options["prompt_tuning_init"] = _init(options["prompt_tuning_init"])
        if options.get("prompt_tuning_init") != "TEXT":
            return super().config(options, model, given=given)
        text = options.get("prompt_tuning_init_text")
        if not isinstance(text, str) or not text:
            raise UsageError("prompt_tuning_init=TEXT needs a prompt_tuning_init_text")
        if _has_folder(options):
            _check_tokenizer(options, model)
            return super().config(options, model, given=given)
        return {**super().config(_without_text(options), model, given=given), **options}

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        assert config is not None
        if not _has_folder(config):
            config = _without_text(config)
        return super().apply(model, config, adapter_dtype=adapter_dtype, device=device)


def _init(value: Any) -> str:
    """The name of an initialisation. peft takes any word, and what it does not know for RANDOM."""
    from peft import PromptTuningInit

    known = [item.value for item in PromptTuningInit]
    if str(value).upper() not in known:
        raise unknown("prompt_tuning_init", str(value), known)
    return str(value).upper()


def _has_folder(options: dict[str, Any]) -> bool:
    """Whether the tokenizer is a folder of this machine."""
    name = options.get("tokenizer_name_or_path")
    return bool(name) and Path(str(name)).is_dir()


def _without_text(options: dict[str, Any]) -> dict[str, Any]:
    """The same with random initial values where they would be a text's."""
    if options.get("prompt_tuning_init") != "TEXT":
        return options
    return {**options, "prompt_tuning_init": "RANDOM", "tokenizer_kwargs": None}


def _check_tokenizer(options: dict[str, Any], model: PreTrainedModel) -> None:
    """Raise `UsageError` unless the folder's tokenizer makes ids of the text that the model has.

    Code that the folder may bring is not run.
    """
    from transformers import AutoTokenizer

    settings = {**(options.get("tokenizer_kwargs") or {}), "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(options["tokenizer_name_or_path"], **settings)
        ids = list(tokenizer(options["prompt_tuning_init_text"])["input_ids"])
    except Exception as error:  # whatever the kind of tokenizer raises
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"tokenizer_name_or_path: the folder's tokenizer fails: {reason}"
        ) from None
    rows = model.get_input_embeddings().weight.shape[0]
    if not ids:
        raise UsageError("prompt_tuning_init_text: the tokenizer makes no token of it")
    if max(ids) >= rows:
        raise UsageError(
            f"tokenizer_name_or_path: token {max(ids)} is not one of the model's {rows}"
        )


@register("p-tuning")
class PTuning(PeftMethod):
    """Virtual tokens through an MLP encoder (Liu et al., arXiv 2103.10385).

    `encoder_hidden_size` has no default in peft; 128 is the figure of peft's own guide
    (docs/source/task_guides/prompt_based_methods.md).
    """

    peft_type = "P_TUNING"
    defaults = {
        "num_virtual_tokens": 20,
        "encoder_reparameterization_type": "MLP",
        "encoder_hidden_size": 128,
    }


@register("prefix-tuning")
class PrefixTuning(PeftMethod):
    """Trained keys and values in every layer (Li and Liang, arXiv 2101.00190)."""

    peft_type = "PREFIX_TUNING"
    defaults = {"num_virtual_tokens": 30}

    def refuses(self, *, checkpointing: str) -> str:
        """As peft (peft/peft_model.py): checkpointing drops the cache that holds the prefix."""
        if checkpointing == "none":
            return ""
        return "prefix tuning does not work with gradient checkpointing; use --checkpointing none"
