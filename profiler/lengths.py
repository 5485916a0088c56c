"""A history of lengths: the samples of a file, batched and padded as a training run would.

Reads the file that `--lengths` names. No torch; a tokenizer's library is imported only for texts.
"""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler.errors import NotBuiltError, UsageError

if TYPE_CHECKING:
    from profiler.spec import RunSpec

#: Flags that say how a history is read and run, and mean nothing without one.
FLAGS = (
    "batching",
    "bucket_batches",
    "empty_cache_every",
    "length_field",
    "text_field",
    "tokenizer",
    "max_length",
)

#: A sample longer than this is a mistake in the file, not a text.
LONGEST = 1 << 24

#: What a line should have been.
_WANTED = "write one whole number of tokens a line, or JSON lines with a field {field!r}"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a step's bytes depend on: `size` samples padded to `length` tokens.

    `padded` says that at least one sample is shorter, so that the mask is materialised.
    """

    size: int
    length: int
    padded: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one step, by their lengths, in the batch's order."""

    lengths: tuple[int, ...]

    @property
    def shape(self) -> Shape:
        longest = max(self.lengths)
        return Shape(len(self.lengths), longest, min(self.lengths) < longest)


@dataclass(frozen=True)
class LengthHistory:
    """The steps of a run over the samples of one file.

    Attributes:
        label: the file's stem.
        samples: tokens of each sample, in the file's order, cut to `--max-length`.
        batches: one for each optimizer step.
        empty_cache_every: the cache is emptied after each so many steps, 0 never.
    """

    label: str
    samples: tuple[int, ...]
    batches: tuple[Batch, ...]
    empty_cache_every: int = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest batch that is run."""
        return max(max(batch.lengths) for batch in self.batches)

    @property
    def tokens(self) -> int:
        """Positions of all steps, padding included."""
        return sum(len(batch.lengths) * max(batch.lengths) for batch in self.batches)

    @property
    def sha256(self) -> str:
        """A digest of the samples' lengths, in order: the content that an id depends on."""
        return hashlib.sha256(",".join(map(str, self.samples)).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """`lengths` of a record's spec. `mean` and `max` are the samples'."""
        return {
            "label": self.label,
            "samples": len(self.samples),
            "steps": len(self.batches),
            "mean": sum(self.samples) / len(self.samples),
            "max": max(self.samples),
            "sha256": self.sha256,
        }


def check(spec: RunSpec) -> None:
    """Cheap checks of the flags of a history. Raises `UsageError`."""
    if spec.lengths is None:
        for name, default in _defaults().items():
            if getattr(spec, name) != default:
                raise UsageError(f"--{name.replace('_', '-')} needs --lengths FILE")
        return
    if spec.device in ("cpu", "cuda"):
        raise NotBuiltError(
            f"--lengths with --device {spec.device} is not built yet: a measured run has batches "
            "of one length; name a GPU, or sim:cpu, to simulate"
        )
    if spec.grad_accumulation > 1:
        raise NotBuiltError("--lengths with --grad-accumulation above 1 is not built yet")
    if spec.padded:
        raise UsageError("--padded with --lengths: a batch is padded where its samples differ")
    if (spec.text_field is None) != (spec.tokenizer is None):
        raise UsageError("--text-field and --tokenizer go together: texts are counted in tokens")
    if not Path(spec.lengths).is_file():
        what = "is a folder" if Path(spec.lengths).is_dir() else "does not exist"
        raise UsageError(f"--lengths {spec.lengths!r} {what}; give a file with one length a line")


def load(spec: RunSpec) -> LengthHistory:
    """The history that a spec names.

    Raises:
        UsageError: the file, a line of it or the tokenizer cannot be used.
    """
    assert spec.lengths is not None
    path = Path(spec.lengths)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"--lengths {spec.lengths!r}: {error.strerror}") from None
    samples = _samples(data, str(path), spec.length_field, spec.text_field, spec.tokenizer)
    if spec.max_length is not None:
        samples = tuple(min(sample, spec.max_length) for sample in samples)
    batches = list(_batches(samples, spec))
    return LengthHistory(
        label=path.stem,
        samples=samples,
        batches=tuple(batches[: spec.steps]),
        empty_cache_every=spec.empty_cache_every,
    )


def batched(
    samples: Sequence[int], size: int, batching: str, *, bucket_batches: int, seed: int
) -> Iterator[Batch]:
    """The batches of `samples`; the last one keeps what is left, as `DataLoader` does by default.

    `random` shuffles the samples. `buckets` cuts them into buckets of `bucket_batches` batches and
    sorts each bucket, longest first, as the `BucketIterator` of peft's comparison of methods does
    (huggingface/peft, method_comparison/MetaMathQA/utils.py).
    """
    order = list(samples)
    if batching == "random":
        random.Random(seed).shuffle(order)
    elif batching == "buckets":
        bucket = size * bucket_batches
        order = [
            sample
            for start in range(0, len(order), bucket)
            for sample in sorted(order[start : start + bucket], reverse=True)
        ]
    for start in range(0, len(order), size):
        yield Batch(tuple(order[start : start + size]))


def _batches(samples: Sequence[int], spec: RunSpec) -> Iterator[Batch]:
    return batched(
        samples,
        spec.batch_size,
        spec.batching,
        bucket_batches=spec.bucket_batches,
        seed=spec.seed,
    )


@functools.lru_cache(maxsize=8)
def _samples(
    data: bytes, path: str, length_field: str, text_field: str | None, tokenizer: str | None
) -> tuple[int, ...]:
    """The length of each sample of a file."""
    where = f"--lengths {path!r}"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{where} line {line}: no text in UTF-8") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise UsageError(f"{where} holds no lengths; {_WANTED.format(field=length_field)}")
    if text_field is not None:
        texts = [_text(f"{where} line {number}", line, text_field) for number, line in lines]
        assert tokenizer is not None
        lengths = _count(texts, tokenizer)
        for (number, _), length in zip(lines, lengths, strict=True):
            _checked(f"{where} line {number}", length)
        return tuple(lengths)
    return tuple(_length(f"{where} line {number}", line, length_field) for number, line in lines)


def _length(where: str, line: str, field: str) -> int:
    if line.startswith("{"):
        value = _field(where, line, field)
        return _checked(where, len(value) if isinstance(value, list) else value)
    if not (line.isascii() and line.lstrip("-").isdigit()):
        short = line if len(line) <= 40 else line[:37] + "..."
        raise UsageError(f"{where}: {short!r} is no length; {_WANTED.format(field=field)}")
    return _checked(where, int(line[:20]))


def _checked(where: str, value: Any) -> int:
    if type(value) is not int:
        raise UsageError(f"{where}: {value!r} is no length; write a whole number of tokens")
    if not 1 <= value <= LONGEST:
        raise UsageError(f"{where}: a sample has 1 to {LONGEST} tokens, not {value}")
    return value


def _text(where: str, line: str, field: str) -> str:
    value = _field(where, line, field)
    if not isinstance(value, str):
        raise UsageError(f"{where}: {field!r} is no text")
    return value


def _field(where: str, line: str, field: str) -> Any:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{where} is no JSON object; write {{{json.dumps(field)}: ...}}")
    if field not in data:
        known = ", ".join(sorted(map(str, data))[:6]) or "none"
        raise UsageError(f"{where} has no field {field!r}; its fields: {known}")
    return data[field]


def _count(texts: list[str], name: str) -> list[int]:
    """Tokens of each text. A tokenizer is data: no code that comes with one is run."""
    if name.endswith(".json"):
        from tokenizers import Tokenizer

        try:
            rust = Tokenizer.from_file(name)
        except Exception as error:  # the library raises nothing narrower
            raise UsageError(f"--tokenizer {name!r} cannot be read: {error}") from None
        return [len(encoding.ids) for encoding in rust.encode_batch(texts)]
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # whatever a folder or the Hub makes the library raise
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"--tokenizer {name!r} cannot be loaded: {reason}") from None
    return [len(ids) for ids in tokenizer(texts)["input_ids"]]


def _defaults() -> dict[str, Any]:
    import dataclasses

    from profiler.spec import RunSpec

    return {item.name: item.default for item in dataclasses.fields(RunSpec) if item.name in FLAGS}
