"""Methods that the `peft` library implements: a preset is a config class and its options."""

from __future__ import annotations

import dataclasses
import enum
import re
from contextlib import nullcontext
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from profiler.errors import UnsupportedError, UsageError, unknown
from profiler.subject.methods.layers import ATTENTION_MODULES
from profiler.subject.methods.registry import Method, get, names

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

#: Value of `target_modules` that stands for the linear layers of the attention.
ATTENTION = "attention-projections"

_NAME = re.compile(r"(?!all-linear)[\w]+(\.[\w]+)*")


class PeftMethod(Method):
    """A preset of a `peft` config class; options are that class's fields."""

    peft_type: ClassVar[str]

    def config(
        self, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
    ) -> dict[str, Any]:
        targets = options.get("target_modules")
        if targets == ATTENTION:
            options = {**options, "target_modules": _attention_projections(model)}
        elif "target_modules" in given and _NAME.fullmatch(str(targets)):
            # peft reads a string as a regex on the whole path; one name is a list of one.
            options = {**options, "target_modules": [targets]}
        for name in given & _lists_of_text(self.peft_type):
            if isinstance(options[name], str):  # else its letters would be taken for names
                options = {**options, name: [options[name]]}
        return resolve_config(self.peft_type, options, model, given=given)

    def prepare(self, peft_config: Any, *, simulated: bool) -> None:
        """Last changes to the `peft` config, before the adapter is built."""

    def apply(
        self,
        model: PreTrainedModel,
        config: dict[str, Any] | None,
        *,
        adapter_dtype: torch.dtype,
        device: str,
    ) -> torch.nn.Module:
        import torch

        assert config is not None
        before = {id(parameter) for parameter in model.parameters()}
        peft_config = _config_class(config["peft_type"])(
            **{key: value for key, value in config.items() if key != "peft_type"}
        )
        self.prepare(peft_config, simulated=is_fake(model))
        try:
            with nullcontext() if device == "cpu" else torch.device(device):
                adapted = _adapt(model, peft_config, adapter_dtype == torch.float32)
        except (ValueError, TypeError, NotImplementedError, ImportError) as error:
            raise UnsupportedError(_one_line(error)) from error
        if adapter_dtype != torch.float32:
            for parameter in adapted.parameters():
                if id(parameter) not in before and parameter.is_floating_point():
                    parameter.data = parameter.data.to(adapter_dtype)
        return adapted


def is_fake(model: torch.nn.Module) -> bool:
    """Whether a model has sizes and no values: it is put together for a simulation."""
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(next(model.parameters(), None), FakeTensor)


def _adapt(model: Any, peft_config: Any, autocast_adapter_dtype: bool) -> Any:
    """A `peft` model; a second adapter of one type goes beside the first, and both are active."""
    import peft

    if not isinstance(model, peft.PeftModel):
        return peft.get_peft_model(
            model, peft_config, autocast_adapter_dtype=autocast_adapter_dtype
        )
    name = f"joined_{sum(isinstance(one, peft.PeftModel) for one in model.modules())}"
    types = {config.peft_type for config in model.peft_config.values()}
    if peft_config.peft_type not in types:
        return peft.get_peft_model(
            model, peft_config, name, autocast_adapter_dtype=autocast_adapter_dtype
        )
    if peft_config.is_prompt_learning:
        raise UnsupportedError(f"peft runs one adapter of {peft_config.peft_type} at a time")
    name = f"joined_{len(model.peft_config)}"
    model.add_adapter(name, peft_config, autocast_adapter_dtype=autocast_adapter_dtype)
    model.base_model.set_adapter(list(model.peft_config))
    return model


def of_type(peft_type: str) -> Method | None:
    """The method of an `adapter_config.json`: the plainest registered one of its type, that brings
    no quantization of its own and is no variant (a subclass) of another; for a type without one, a
    method without hooks. None for a type that `peft` does not know."""
    methods = (get(name) for name in names())
    plain = [
        method
        for method in methods
        if getattr(method, "peft_type", None) == peft_type and method.quantization is None
    ]
    if plain:
        return min(plain, key=lambda method: len(type(method).__mro__))
    if peft_type not in known_peft_types():
        return None
    return type(peft_type, (PeftMethod,), {"peft_type": peft_type})()


def resolve_config(
    peft_type: str, options: dict[str, Any], model: PreTrainedModel, *, given: frozenset[str]
) -> dict[str, Any]:
    """The full JSON of a `peft` config with these options, its targets checked against `model`.

    Raises:
        UsageError: an unknown or malformed option, or a given target that matches no module.
        UnsupportedError: `peft` has no default targets for this kind of model.
    """
    import peft

    cls = _config_class(peft_type)
    options = dict(options)
    fields = {item.name for item in dataclasses.fields(cls) if item.init}
    for key in list(options):
        if key not in fields:
            if key not in given and not options[key]:  # another version's field, left at nothing
                del options[key]
                continue
            raise unknown(f"option of {cls.__name__}:", key, fields)
    # A plain module is no language model, and peft wraps it as it is.
    settings = {"task_type": "CAUSAL_LM", **options} if hasattr(model, "config") else options
    try:
        config = cls(**settings)
    except ImportError as error:  # a package that only this type needs
        raise UnsupportedError(_one_line(error)) from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{cls.__name__}: {_one_line(error)}") from None
    for name in ("r", "num_virtual_tokens"):
        value = getattr(config, name, None)
        if name in given and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UsageError(
                f"{cls.__name__}: {name} must be an integer of 1 or more, not {value!r}"
            )
    targets = getattr(config, "target_modules", None)
    if targets is None and "target_modules" in fields:
        mapping = getattr(
            peft.utils,
            f"TRANSFORMERS_MODELS_TO_{peft_type}_TARGET_MODULES_MAPPING",
            None,
        )
        model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        if mapping is not None and model_type not in mapping:
            raise UnsupportedError(
                f"peft has no default target_modules of {peft_type} for {model_type}; "
                "give target_modules"
            )
    if targets is not None and (targets or not getattr(config, "target_parameters", None)):
        _check_targets(targets, model)
    data = _jsonable(config.to_dict())
    assert isinstance(data, dict)
    data["peft_type"] = peft_type
    return data


def _lists_of_text(peft_type: str) -> set[str]:
    """Fields of a config that hold a list of strings, and no string."""
    fields = dataclasses.fields(_config_class(peft_type))
    return {
        item.name
        for item in fields
        if "list[str]" in (text := str(item.type).lower())
        and "str" not in text.replace("list[str]", "")
    }


def known_peft_types() -> list[str]:
    """The method types that the installed `peft` knows."""
    import peft

    return [item.value for item in peft.PeftType]


def _config_class(peft_type: str) -> Any:
    from peft import mapping

    table: dict[str, Any] = mapping.PEFT_TYPE_TO_CONFIG_MAPPING
    if peft_type not in table:
        raise UnsupportedError(f"the installed peft {metadata.version('peft')} has no {peft_type}")
    return table[peft_type]


def _check_targets(targets: Any, model: PreTrainedModel) -> None:
    """As peft matches them: a string is a regex on the whole path, a list holds path endings."""
    if targets == "all-linear":
        return
    paths = [name for name, _ in model.named_modules() if name]
    if isinstance(targets, str):
        try:
            matches = any(re.fullmatch(targets, path) for path in paths)
        except re.error as error:
            raise UsageError(
                f"target_modules {targets!r} is no regular expression: {error}"
            ) from None
    else:
        matches = any(f".{path}".endswith(f".{target}") for target in targets for path in paths)
    if not matches:
        text = targets if isinstance(targets, str) else "+".join(sorted(map(str, targets)))
        raise UsageError(
            f"target_modules {text!r} matches no module of {type(model).__name__}; "
            f"there are {', '.join(_examples(model))}"
        )


def _linear_paths(model: PreTrainedModel) -> list[str]:
    import torch
    from transformers.pytorch_utils import Conv1D

    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D))
    ]


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last names of the linear layers, but the output embedding's: what "all-linear" stands for."""
    head = model.get_output_embeddings()
    found = {path for path in _linear_paths(model) if model.get_submodule(path) is not head}
    return sorted({path.rpartition(".")[2] for path in found})


def _examples(model: PreTrainedModel) -> list[str]:
    return sorted({path.rpartition(".")[2] for path in _linear_paths(model)} - {"lm_head"})


def _attention_projections(model: PreTrainedModel) -> list[str]:
    """Endings of the paths of the linear layers directly inside an attention module."""
    found = set()
    for path in _linear_paths(model):
        *_, parent, name = ["", *path.split(".")]
        if parent in ATTENTION_MODULES:
            found.add(f"{parent}.{name}")
    if not found:
        raise UnsupportedError(f"{type(model).__name__} has no linear layers in its attention")
    return sorted(found)


def _jsonable(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _jsonable(dataclasses.asdict(value))
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
