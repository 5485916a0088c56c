"""What advice is kept: every answer, for the page to be drawn again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from profiler import stored
from profiler.advisor.advice import Advice, Find
from profiler.errors import StoreError
from profiler.files import replace_file

SCHEMA = 1
#: The file's name in the folder of the page.
NAME = "advice.json"


class Answer(BaseModel):
    """One method's answer on one card: the largest batch, or the longest sequence."""

    model_config = ConfigDict(frozen=True)

    device: str
    find: Find
    advice: Advice


class Results(BaseModel):
    """All answers of one question."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    model_config = ConfigDict(frozen=True, populate_by_name=True)

    model: str
    command: str = ""
    answers: list[Answer]
    approximations: list[str] = Field(default_factory=list)
    environment: dict[str, Any] = Field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"What fits: {self.model}"

    @property
    def devices(self) -> list[str]:
        """The cards, in the order in which they were asked of."""
        return list(dict.fromkeys(one.device for one in self.answers))

    @property
    def finds(self) -> list[Find]:
        return list(dict.fromkeys(one.find for one in self.answers))

    def of(self, device: str, find: Find) -> list[Advice]:
        """The answers on a card, in their order."""
        return [one.advice for one in self.answers if (one.device, one.find) == (device, find)]

    def sentences(self) -> list[str]:
        """The answer, card by card, in words."""
        from profiler.advisor.printed import answer

        return [
            f"{device}: {' '.join(answer(self.of(device, find), find))}"
            for find in self.finds
            for device in self.devices
        ]

    def to_json(self) -> str:
        return stored.to_json(self)


def write(results: Results, folder: Path) -> None:
    """Keep the results in a folder.

    Raises:
        StoreError: they cannot be written.
    """
    path = folder / NAME
    try:
        replace_file(path, results.to_json().encode("utf-8"))
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None


def read(path: Path) -> Results:
    """The results that a file holds.

    Raises:
        StoreError: it cannot be read, or holds none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from None
    return stored.from_json(Results, data, schema=SCHEMA, what="advice")
