"""Known architectures by name, without any download; folders, files and Hub ids."""

from __future__ import annotations

import functools
import json
import re
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import UsageError, unknown

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

ARCHITECTURES = Path(__file__).parent / "architectures"

#: Fields of a config that say how many modules there are, and the most that are built. The widest
#: mixture published has 2,048 experts (Switch-C, arXiv 2101.03961), the deepest model 1,000 layers
#: (DeepNet, arXiv 2203.00555).
_COUNT = re.compile(r"(layer|layers|experts|blocks|depth|depths)$")
MOST_MODULES = 4096

#: Settings of a model's config that say what is run, not which model it is.
_ATTENTION = "attn_implementation"


@dataclass(frozen=True)
class ModelSource:
    """A model as named: `name` for people, `config` the content that was found (no path)."""

    name: str
    config: dict[str, Any]


@functools.cache
def names() -> tuple[str, ...]:
    """Names of the shipped architectures."""
    return tuple(sorted(path.stem for path in ARCHITECTURES.glob("*.json")))


def parameter_count(name: str) -> int:
    """Published parameter count of a shipped architecture."""
    return int(json.loads((ARCHITECTURES / f"{name}.json").read_text())["_parameters"])


def check(model: str) -> None:
    """Raise `UsageError` unless `model` names something that could be loaded. Imports no torch."""
    if model in names() or "/" in model.strip("./") or Path(model).exists():
        return
    if model.startswith((".", "/")) or model.endswith(".json"):
        raise UsageError(f"no model at {model!r}; give a folder or file with a config.json")
    raise unknown("model", model, names(), hint=" (or a folder with a config.json, or a Hub id)")


def load(model: str, overrides: tuple[str, ...] = ()) -> ModelSource:
    """Find `model` and apply `KEY=VALUE` overrides to its config.

    Raises:
        UsageError: nothing is there, it is no config, or an override names no field of it.
    """
    check(model)
    path = Path(model)
    if model in names():
        data = _read(ARCHITECTURES / f"{model}.json")
        name = model
    elif path.exists():
        file = path / "config.json" if path.is_dir() else path
        if not file.is_file():
            raise UsageError(f"no config.json in {model!r}; give a model's folder or config file")
        data = _read(file)
        name = (path if path.is_dir() else path.parent if path.stem == "config" else path).stem
    else:
        data = _from_hub(model)
        name = model
    data = {key: value for key, value in data.items() if not key.startswith("_")}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise UsageError(f"--model-override {override!r} is not KEY=VALUE")
        if key not in data and not hasattr(config(ModelSource(name, data)), key):
            known = config(ModelSource(name, data)).to_dict()
            raise unknown("config field", key, known, hint=" (--model-override)")
        data[key] = _value(text)
    return ModelSource(name=name, config=data)


def config(source: ModelSource) -> PretrainedConfig:
    """The `transformers` config of a source. Raises `UsageError` if `transformers` refuses it."""
    from transformers import AutoConfig

    fields = dict(source.config)
    model_type = fields.pop("model_type", None)
    if not isinstance(model_type, str):
        raise UsageError(f"the config of {source.name!r} has no model_type")
    _check_counts(source.name, fields)
    try:
        return AutoConfig.for_model(model_type, **fields)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"transformers refuses the config of {source.name!r}: {reason}") from None


def _check_counts(name: str, fields: dict[str, Any]) -> None:
    """Raise for numbers of modules that nobody would live to see made."""
    for key, value in fields.items():
        if isinstance(value, dict):
            _check_counts(name, value)
        elif (
            _COUNT.search(key)
            and isinstance(value, int | float | str)
            and not isinstance(value, bool)
        ):
            try:
                sane = float(value) <= MOST_MODULES
            except (ValueError, OverflowError):
                sane = not isinstance(value, int)  # text is for transformers to refuse
            if not sane:
                raise UsageError(
                    f"the config of {name!r} has {key} {str(value)[:30]}; at most {MOST_MODULES} "
                    "are built"
                )


def build(
    source: ModelSource, *, dtype: torch.dtype, attention: str = "auto", device: str = "meta"
) -> PreTrainedModel:
    """The causal language model of a source, its weights in `dtype`.

    On the meta device nothing has memory. On another, buffers have their values and parameters
    are not initialised: whoever asks for them fills them.

    `attention` "auto" leaves the choice to `transformers`. flash-attention 2 is built as sdpa and
    switched on afterwards: its package cannot be imported without CUDA, and shapes do not need it.

    Raises:
        UsageError: `transformers` has no causal model for it, or not with this attention.
    """
    import torch
    from transformers import AutoModelForCausalLM

    settings: dict[str, Any] = {dtype_keyword(): dtype}
    if attention != "auto":
        settings[_ATTENTION] = "sdpa" if attention == "flash_attention_2" else attention
    try:
        with torch.device(device), _no_init() if device != "meta" else nullcontext():
            model = AutoModelForCausalLM.from_config(
                config(source), trust_remote_code=False, **settings
            )
    except Exception as error:  # what a config's values make of each library's code
        # The first sentence says what; how to ask for support upstream is left out.
        reason = " ".join(str(error).split()).split(". Please")[0].split(". If")[0][:300]
        raise UsageError(f"transformers cannot build {source.name!r}: {reason}") from None
    model.tie_weights()  # part of the initialisation that was left out
    if attention == "flash_attention_2":
        if not getattr(model, "_supports_flash_attn", getattr(model, "_supports_flash_attn_2", 0)):
            raise UsageError(f"{source.name} has no flash_attention_2; use eager or sdpa")
        model.config._attn_implementation = "flash_attention_2"
    return model


def _no_init() -> Any:
    """The context in which `transformers` leaves parameters as they were allocated."""
    try:
        from transformers.initialization import no_init_weights
    except ImportError:  # before transformers 5
        from transformers.modeling_utils import no_init_weights
    return no_init_weights()


def dtype_keyword() -> str:
    """`dtype`, or `torch_dtype` before transformers 4.56 (modeling_utils.py)."""
    import transformers
    from packaging.version import Version

    return "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the model config {file.name!r}: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"the model config {file.name!r} is not a JSON object")
    return data


def _from_hub(model: str) -> dict[str, Any]:
    """The config of a Hub id, from the local cache first. A repository's code never runs."""
    from transformers import PretrainedConfig

    reason = ""
    for local in (True, False):
        if not local and not _online():
            reason = "it is not in the local cache, and the Hub cannot be reached"
            break
        try:
            data, _ = PretrainedConfig.get_config_dict(model, local_files_only=local)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
        else:
            if data:
                return dict(data)
    raise UsageError(f"no config for {model!r}: no such path here, and as a Hub id: {reason}")


def _online() -> bool:
    """Whether the Hub's name resolves; its client would otherwise retry for half a minute."""
    import socket

    from huggingface_hub.constants import ENDPOINT

    try:
        socket.getaddrinfo(ENDPOINT.split("//")[-1].split("/")[0].split(":")[0], 443)
    except OSError:
        return False
    return True


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
