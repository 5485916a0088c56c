"""Any `adapter_config.json` of a type that `peft` knows: what `--method PATH` means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from profiler.errors import UsageError, unknown
from profiler.subject.methods.peft_method import known_peft_types, of_type
from profiler.subject.methods.registry import Method

#: Fields that say where an adapter came from or how it is used, not what it is.
_PROVENANCE = frozenset(
    {"auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version"}
)


def read(path: Path) -> tuple[Method, str, dict[str, Any]]:
    """The method, the peft type and the options of an adapter config file.

    Raises:
        UsageError: the file is unreadable, no JSON object, or of a type peft does not know.
    """
    file = path / "adapter_config.json" if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"cannot read the adapter config {file.name!r}: {reason}") from None
    if not isinstance(data, dict):
        raise UsageError(f"the adapter config {file.name!r} is not a JSON object")
    peft_type = data.pop("peft_type", None)
    if not isinstance(peft_type, str):
        raise UsageError(f'the adapter config {file.name!r} has no peft_type, such as "LORA"')
    method = of_type(peft_type)
    if method is None:
        raise unknown("peft_type", peft_type, known_peft_types())
    return (
        method,
        peft_type,
        {
            key: value
            for key, value in data.items()
            if key not in _PROVENANCE and value is not None and value != {}
        },
    )
