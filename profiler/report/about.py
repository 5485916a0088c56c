"""What a page says of itself that no record holds: kept beside the records, to render it again."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from profiler.errors import StoreError
from profiler.files import replace_file

_NAME = "page.json"


class About(BaseModel):
    """A page's title, the command that made its records, and the method it compares with."""

    model_config = ConfigDict(frozen=True)

    title: str = ""
    command: str = ""
    baseline: str = ""


def write(folder: Path, about: About) -> None:
    """Keep it in a study's folder.

    Raises:
        StoreError: it cannot be written.
    """
    path = folder / _NAME
    # A path typed with bytes that are no UTF-8 is shown by their escapes.
    texts = {name: _text(value) for name, value in about.model_dump().items()}
    try:
        replace_file(path, About(**texts).model_dump_json(indent=1).encode() + b"\n")
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None


def read(folder: Path) -> About:
    """What a study's folder says of its page; nothing, where nothing is kept.

    Raises:
        StoreError: what is there cannot be read.
    """
    path = folder / _NAME
    try:
        return About.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return About()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from None
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise StoreError(f"{path}: {reason}; remove it, and the page has its defaults") from None


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
