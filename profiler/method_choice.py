"""What `--method` says: a preset, options, a file, or several of them joined."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.subject.methods import Method


@dataclass(frozen=True)
class MethodChoice:
    """A method as typed.

    Attributes:
        label: what was typed, or the file's stem for a path.
        preset: the preset, the peft type of an adapter config, or `file.py:Class`.
        options: the given options over the preset's.
        given: names of the given ones.
        source: SHA-256 of the file that a method's code came from, "" for a registered one.
    """

    label: str
    preset: str
    options: dict[str, Any]
    given: frozenset[str]
    method: Method
    source: str = ""

    def content(self) -> dict[str, Any]:
        """What an id depends on: what was asked for, not how it was typed."""
        if self.source:
            return {"preset": self.preset, "options": self.options, "source": self.source}
        # A preset without hooks is its peft type: it differs in options, or in resolved fields.
        kind = self.preset.upper().replace("-", "_")
        if not any(vars(cls).keys() & _HOOKS for cls in _below_peft_method(type(self.method))):
            kind = getattr(self.method, "peft_type", kind)
        return {"preset": kind, "options": self.options}


#: What makes two methods of one peft type differ.
_HOOKS = {"config", "apply", "prepare", "inputs", "after_step", "state", "refuses"}


def _below_peft_method(cls: type) -> list[type]:
    """The class and its bases, without those that every method has."""
    from profiler.subject.methods.peft_method import PeftMethod

    return [one for one in cls.__mro__ if one not in PeftMethod.__mro__]


def choose_method(label: str) -> MethodChoice:
    """Read a method: a preset, a preset with options, the path of an adapter config, a class in a
    Python file, or several of these joined by `&`.

    Raises:
        UsageError: no such preset, file or class, or options that cannot be read.
    """
    parts = [label] if Path(label).exists() else _joined(label)
    if len(parts) == 1:
        return _choose_one(label)
    from profiler.subject.methods.joined import Joined

    choices = [_choose_one(part) for part in parts]
    return MethodChoice(
        label="&".join(choice.label for choice in choices),
        preset="&".join(choice.preset for choice in choices),
        options={"joined": [choice.options for choice in choices]},
        given=frozenset().union(*(choice.given for choice in choices)),
        method=Joined([(one.method, one.options, one.given) for one in choices]),
        source="&".join(choice.source for choice in choices if choice.source),
    )


def _choose_one(label: str) -> MethodChoice:
    from profiler.subject import methods
    from profiler.subject.methods import adapter_config, own_file

    if not label.strip():
        raise UsageError("--method is empty; give a preset such as lora, or a path")
    path = Path(label)
    if path.suffix == ".json" or path.is_dir() or path.is_file():
        if path.suffix == ".py":
            raise UsageError(f"--method {label!r}: name the class, as {label}:MyMethod")
        if not path.exists():
            raise UsageError(f"no adapter config at {label!r}")
        method, peft_type, options = adapter_config.read(path)
        name = path.stem if path.suffix else path.name
        return MethodChoice(name, peft_type, options, frozenset(), method)
    preset, _, text = label.partition(":")
    source = ""
    if preset.endswith(".py"):
        name, _, text = text.partition(":")
        method, source = own_file.load(Path(preset), name)
        preset = f"{Path(preset).name}:{name}"
        label = f"{preset}:{text}" if text else preset
    else:
        method = methods.get(preset)
    given = _options(text, label)
    options = {**method.defaults, **given}
    return MethodChoice(label, preset, options, frozenset(given), method, source)


def _joined(label: str) -> list[str]:
    """The parts between `&`, JSON values left whole."""
    parts, depth, quoted = [""], 0, False
    for character in label:
        if character == '"':
            quoted = not quoted
        elif not quoted:
            depth += (character in "[{") - (character in "]}")
        if character == "&" and not quoted and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _options(text: str, label: str) -> dict[str, Any]:
    """`r=8,target_modules=q_proj+v_proj`; a value that starts with [, { or " is JSON."""
    options: dict[str, Any] = {}
    rest = text
    decoder = json.JSONDecoder()
    while rest:
        key, separator, rest = rest.partition("=")
        key = key.strip()
        if not separator or not key.isidentifier():
            raise UsageError(
                f"--method {label!r}: options are KEY=VALUE,KEY=VALUE, such as lora:r=8"
            )
        if key in options:
            raise UsageError(f"--method {label!r}: option {key!r} is given twice")
        if rest[:1] in ("[", "{", '"'):
            try:
                options[key], end = decoder.raw_decode(rest)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"--method {label!r}: {key} is no JSON: {error}") from None
            rest = rest[end:]
            if rest and not rest.startswith(","):
                raise UsageError(f"--method {label!r}: a comma must follow the value of {key}")
            rest = rest[1:]
            continue
        value, _, rest = rest.partition(",")
        if not value:
            raise UsageError(f"--method {label!r}: option {key!r} has no value")
        options[key] = value.split("+") if "+" in value else _scalar(value)
    return options


def _scalar(text: str) -> Any:
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("none", "null"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
