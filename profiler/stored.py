"""Results that a command stores as JSON beside its page, and reads again to draw it."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from profiler.errors import StoreError

Model = TypeVar("Model", bound=BaseModel)


def to_json(results: BaseModel) -> str:
    return json.dumps(results.model_dump(mode="json", by_alias=True), ensure_ascii=False, indent=1)


def from_json(kind: type[Model], text: str | bytes, *, schema: int, what: str) -> Model:
    """The results of `to_json`'s output.

    Args:
        what: they are, for the error: "a validation".

    Raises:
        StoreError: `text` is none, or of another schema.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"not {what}: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != schema:
        raise StoreError(f"not {what} of schema {schema}")
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"not {what}: {where}: {first['msg']}") from None
