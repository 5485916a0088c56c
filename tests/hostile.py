"""What strangers send: values, texts and files that are nothing like what was asked for."""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st


def _deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


#: Values of wrong types and sizes, and names that lead elsewhere.
VALUES = st.sampled_from(
    [
        None, True, False, 0, -1, 1, 3, 2**31, 2**63, -(2**63), 10**30, 1e308, -0.5, 1e-320,
        float("nan"), float("inf"), "", "0", "none", "True", "../../../escaped", "/escaped",
        "a\0b", "a\nb", "\x1b[31m", "x" * 5000, "é\u202e😀", "\udcff", "[", "{}", ".*", "(", "*",
        [], [[]], {}, ["q_proj"], {"a": {}}, [None], ["../x"], list(range(50)), _deep(200),
        {"__class__": "os.system"}, "__import__('os').system('touch escaped')",
    ]
).map(copy.deepcopy)  # fmt: skip

#: Pieces of command-line values.
_PIECES = [
    "lora", "qlora", "ia3", "full", "prompt-tuning", "p-tuning", "adalora", ":", ",", "=", "&", "+",
    "r", "r=8", "r=-1", "r=1e9", "r=99999999999999999999", "target_modules=", "q_proj", "[", "]",
    "{", "}", '"', "..", "/", "\\", "\0", "\n", "%s", "{0}", "$HOME", "~", "-", "--", "é", "😀",
    "\u202e", "\udcff", "nan", "inf", "1e400", "0x10", "true", "None", ".py", "x.py:X", ".json",
    "expandable_segments", "max_split_size_mb", "True", "GiB", "1", "-1", "cuda", "sim:cpu", "(",
    "not", "and", "or", " ", "a" * 300, "*", ".*", '{"r":1}', "loha", "bias=", "all",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(_PIECES), max_size=6).map("".join) | st.text(max_size=30)


@st.composite
def changed(draw: st.DrawFn, data: Any, times: int = 3) -> Any:
    """A copy of JSON data with some of its values replaced, removed, or joined by more."""
    result = copy.deepcopy(data)
    for _ in range(draw(st.integers(1, times))):
        place: Any = result
        parent: Any = None
        key: Any = None
        while isinstance(place, dict | list) and place and (parent is None or draw(st.booleans())):
            parent = place
            key = draw(
                st.sampled_from(sorted(place))
                if isinstance(place, dict)
                else st.integers(0, min(len(place), 5) - 1)
            )
            place = place[key]
        if parent is None:
            return draw(VALUES)
        how = draw(st.integers(0, 5))
        if how == 0:
            del parent[key]
        elif how == 1 and isinstance(parent, dict):
            parent[draw(st.sampled_from(["", "x" * 500, "../k", "a\0", "_name", "schema"]))] = place
        else:
            parent[key] = draw(VALUES)
    return result


@st.composite
def files(draw: st.DrawFn, data: Any, times: int = 3) -> bytes:
    """The bytes of a JSON file whose data was changed, or that itself was damaged."""
    text = json.dumps(draw(changed(data, times))).encode()
    how = draw(st.integers(0, 7))
    if how == 0:
        return text[: draw(st.integers(0, len(text)))]
    if how == 1:
        at = draw(st.integers(0, len(text)))
        return text[:at] + draw(st.binary(min_size=1, max_size=8)) + text[at:]
    if how == 2:
        return draw(
            st.sampled_from([b"", b"[" * 100_000, b"\xff\xfe", b"null", b"1", b"[]", b'{"a":' * 9])
        )
    return text


@dataclass
class Answer:
    code: int
    out: str
    err: str


class Terminal:
    """Runs commands in this process, in a folder of their own, and sees what they leave.

    Args:
        root: Everything in it is this terminal's; commands run in, and may write into, `root/out`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "out"
        self.files = root / "files"
        for folder in (self.out, self.files):
            folder.mkdir()
        self._escaped = [Path("/escaped"), Path("/x"), Path.home() / "escaped"]

    def file(self, name: str, data: bytes) -> str:
        path = self.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    def __call__(
        self, main: Callable[[Sequence[str]], int], *arguments: str, lines: int | None = 1
    ) -> Answer:
        """Run a command: an answer, or some lines on stderr that say why there is none."""
        before = self._outside()
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
        cwd = os.getcwd()  # noqa: PTH109
        os.chdir(self.out)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = main(list(arguments))
        finally:
            os.chdir(cwd)
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode())
        answer = Answer(code, *texts)
        assert code in (0, 1, 2), answer
        assert "Traceback" not in answer.err, answer
        said = answer.err.splitlines()
        assert all(line.startswith("profiler.") for line in said), answer
        if code == 2:
            assert len(said) == 1, answer
            assert "error: " in said[0]
            assert "Error: " not in said[0].partition("error: ")[2][:40], answer
        elif code == 1:
            assert said, answer
        assert self._outside() == before, "it wrote elsewhere"
        return answer

    def _outside(self) -> list[Path]:
        outside = sorted(path for path in self.root.rglob("*") if self.out not in path.parents)
        return [*outside, *(path for path in self._escaped if path.exists())]
