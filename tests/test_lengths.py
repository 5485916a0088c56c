"""Files of lengths and the batches made of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import NotBuiltError, UsageError
from profiler.lengths import Batch, Shape, batched, load
from profiler.resolve import resolve
from profiler.spec import RunSpec


def spec_of(path: Path, **fields: Any) -> RunSpec:
    return RunSpec(**{"model": "opt-125m", "lengths": str(path), **fields})


def wrote(folder: Path, content: str | bytes, name: str = "lengths.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


samples_of = st.lists(st.integers(1, 900), min_size=1, max_size=120)


@given(samples_of, st.integers(1, 7), st.sampled_from(["in-order", "random", "buckets"]))
def test_every_sample_is_in_one_batch(samples: list[int], size: int, batching: str) -> None:
    batches = list(batched(samples, size, batching, bucket_batches=3, seed=1))
    assert Counter(one for batch in batches for one in batch.lengths) == Counter(samples)
    assert all(len(batch.lengths) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1].lengths) <= size
    if batching == "in-order":
        assert [one for batch in batches for one in batch.lengths] == samples


@given(samples_of, st.integers(1, 5), st.integers(1, 5))
def test_buckets_are_sorted_longest_first(samples: list[int], size: int, count: int) -> None:
    batches = list(batched(samples, size, "buckets", bucket_batches=count, seed=0))
    for start in range(0, len(batches), count):
        bucket = [one for batch in batches[start : start + count] for one in batch.lengths]
        assert bucket == sorted(bucket, reverse=True)
        assert Counter(bucket) == Counter(samples[start * size : (start + count) * size])


def test_random_is_the_seeds_order() -> None:
    samples = list(range(1, 60))
    drawn = [list(batched(samples, 4, "random", bucket_batches=1, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_shape_is_padded_where_its_samples_differ() -> None:
    assert Batch((7, 3, 7)).shape == Shape(3, 7, True)
    assert Batch((7, 7)).shape == Shape(2, 7, False)
    assert Batch((5,)).shape == Shape(1, 5, False)


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ("5\n 8 \n\n3\n", {}),
        ("\ufeff5\r\n8\r\n3", {}),
        ('{"length": 5}\n{"length": 8, "more": 1}\n{"length": 3}', {}),
        ('{"n": 5}\n{"n": 8}\n{"n": 3}', {"length_field": "n"}),
        ('{"n": [1,2,3,4,5]}\n{"n": [1,1,1,1,1,1,1,1]}\n{"n": [0,0,0]}', {"length_field": "n"}),
        ("9\n8\n3", {"max_length": 8}),
    ],
)  # fmt: skip
def test_formats_of_a_file(tmp_path: Path, content: str, fields: dict[str, Any]) -> None:
    history = load(spec_of(wrote(tmp_path, content), **fields))
    expected = (8, 8, 3) if "max_length" in fields else (5, 8, 3)
    assert history.samples == expected
    assert history.summary() == {
        "label": "lengths",
        "samples": 3,
        "steps": 3,
        "mean": sum(expected) / 3,
        "max": 8,
        "sha256": history.sha256,
    }


def test_texts_are_counted_by_a_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    tokenizer = Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    lines = "\n".join(json.dumps({"text": text}) for text in ("a b", "b a a b c", "c"))
    fields = {"text_field": "text", "tokenizer": str(tmp_path / "tokenizer.json")}
    spec = spec_of(wrote(tmp_path, lines, "texts.jsonl"), **fields)
    assert load(spec).samples == (2, 5, 1)
    cell = resolve(spec)
    assert str(tmp_path) not in json.dumps(cell.record_spec)
    numbers = resolve(spec_of(wrote(tmp_path, "2\n5\n1")))
    assert cell.id == numbers.id
    with pytest.raises(UsageError, match=r"tokenizer .* cannot be read"):
        load(spec.replace(tokenizer=str(wrote(tmp_path, "{}", "empty.json"))))
    with pytest.raises(UsageError, match=r"tokenizer .* cannot be loaded"):
        load(spec.replace(tokenizer=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no lengths"),
        (" \n\n", "holds no lengths"),
        ("5\nx\n", "line 2: 'x' is no length"),
        ("5\n\n4.5\n", "line 3: '4.5' is no length"),
        ("5\n0\n", "line 2: a sample has 1 to"),
        ("-3\n", "line 1: a sample has 1 to"),
        ("9" * 40, "line 1: a sample has 1 to"),
        ("5\n[1, 2]\n", r"line 2: '\[1, 2\]' is no length"),
        ('{"length": 5}\n{"length": "5"}\n', "line 2: '5' is no length"),
        ('{"length": true}\n', "line 1: True is no length"),
        ('{"length": 5}\n{"size": 5}\n', "line 2 has no field 'length'; its fields: size"),
        ('{"length": 5}\n{"length": 5\n', "line 2 is no JSON"),
        (b"5\n\xff\xfe\n", "line 2: no text in UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        load(spec_of(wrote(tmp_path, content)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"lengths": "nowhere.txt"}, UsageError, "does not exist"),
        ({"lengths": "."}, UsageError, "is a folder"),
        ({"device": "cpu"}, NotBuiltError, "--lengths with --device cpu is not built"),
        ({"grad_accumulation": 2}, NotBuiltError, "--grad-accumulation"),
        ({"padded": True}, UsageError, "--padded with --lengths"),
        ({"seq_len": 512}, UsageError, "--seq-len 512 with --lengths"),
        ({"text_field": "text"}, UsageError, "go together"),
        ({"stack": "trl"}, NotBuiltError, "--loss chunked"),
        ({"attention": "flash_attention_2"}, NotBuiltError, "flash_attention_2"),
        ({"lengths": None, "batching": "buckets"}, UsageError, "--batching needs --lengths"),
        ({"lengths": None, "max_length": 3}, UsageError, "--max-length needs --lengths"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_by_name(
    tmp_path: Path, fields: dict[str, Any], error: type[UsageError], words: str
) -> None:
    path = wrote(tmp_path, "5\n8\n")
    with pytest.raises(error, match=words):
        resolve(spec_of(path, batch_size=2).replace(**fields))


def test_a_history_counts_by_its_content(tmp_path: Path) -> None:
    spec = spec_of(wrote(tmp_path, "5\n8\n3\n9"), batch_size=2)
    cell = resolve(spec)
    assert (cell.spec.seq_len, cell.spec.steps) == (9, 2)
    assert (
        resolve(spec.replace(lengths=str(wrote(tmp_path, "5\n8\n3\n9\n", "other")))).id == cell.id
    )
    assert resolve(spec.replace(max_length=9)).id == cell.id
    assert resolve(spec.replace(bucket_batches=3)).id == cell.id
    assert (
        resolve(spec.replace(lengths=str(wrote(tmp_path, "8\n5\n3\n9", "another")))).id != cell.id
    )
    for change in ({"batching": "random"}, {"empty_cache_every": 1}, {"steps": 1}):
        assert resolve(spec.replace(**change)).id != cell.id
    assert cell.record_spec["lengths"]["label"] == "lengths"
    assert str(tmp_path) not in json.dumps(cell.record_spec)
    assert resolve(spec.replace(steps=1)).spec.seq_len == 8
