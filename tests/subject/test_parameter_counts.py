"""Parameter counts against published ones, to the unit."""

from __future__ import annotations

import json
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import published_adapters
import pytest
import tiny
from packaging.version import Version

from profiler.bench import weights
from profiler.errors import UsageError
from profiler.execute import run
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.subject import build

TEXT = "What the text below says, and no more than that:"


@pytest.mark.parametrize("row", published_adapters.rows(), ids=lambda row: row.name)
def test_counts_of_a_published_run(row: published_adapters.Row) -> None:
    params = row.params()
    by_accident = 0
    if row.name.startswith("adalora") and Version(metadata.version("peft")) >= Version("0.21"):
        # `_mark_only_adapters_as_trainable` goes by module from 0.21 on, no longer by name, and
        # leaves the rank count of each of 56 layers trainable. Published with 0.19.
        by_accident = 56
    assert (params.trainable, params.total) == (row.trainable + by_accident, row.total)


def test_the_embeddings_of_a_text_are_as_many_as_its_virtual_tokens() -> None:
    """BLOOM-1.4B zh, "hard" prompt: 8 virtual tokens that begin as a text's embeddings.

    As published in the tutorial series that adapts Langboat/bloom-1b4-zh with each method of peft;
    the tokenizer is named as there, and not fetched.
    """
    method = (
        f"prompt-tuning:num_virtual_tokens=8,prompt_tuning_init=TEXT,"
        f"prompt_tuning_init_text={json.dumps(TEXT)},tokenizer_name_or_path=Langboat/bloom-1b4-zh"
    )
    params = build(resolve(RunSpec(model="bloom-1b4-zh", method=method))).params
    assert (params.trainable, params.total) == (16_384, 1_303_128_064)


def test_the_lstm_of_p_tuning_is_counted_whole(tmp_path: Path) -> None:
    """peft/tuners/p_tuning/model.py: two bidirectional layers, then two linear ones."""
    width, tokens, hidden = 64, 10, 24
    method = (
        f"p-tuning:num_virtual_tokens={tokens},encoder_hidden_size={hidden},"
        "encoder_reparameterization_type=LSTM,encoder_num_layers=2"
    )
    cell = resolve(RunSpec(model=tiny.write(tmp_path)["bloom"], method=method))
    lstm = sum(2 * 4 * hidden * (wide + hidden + 2) for wide in (width, 2 * hidden))
    head = (2 * hidden + 1) * 2 * hidden + (2 * hidden + 1) * width
    assert build(cell).params.trainable == tokens * width + lstm + head


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A folder with a tokenizer that knows the words of `TEXT`."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted({*TEXT.replace(",", " ").replace(":", " ").split(), ",", ":", "[UNK]"})
    table = {word: number for number, word in enumerate(words)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(table, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    folder = tmp_path / "tokenizer"
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]").save_pretrained(folder)
    return folder


def prompt(tokens: int, **options: Any) -> str:
    """prompt-tuning with these options, as JSON."""
    given = {"num_virtual_tokens": tokens, "prompt_tuning_init": "TEXT", **options}
    return "prompt-tuning:" + ",".join(
        f"{key}={json.dumps(value)}" if isinstance(value, str | dict) else f"{key}={value}"
        for key, value in given.items()
        if value is not None
    )


@pytest.mark.parametrize("tokens", [3, 11, 40])
@pytest.mark.parametrize("family", ["opt", "bloom"])
def test_a_tokenizer_decides_no_size(
    family: str, tokens: int, tokenizer: Path, tmp_path: Path
) -> None:
    model = tiny.write(tmp_path)[family]
    records = [
        run(RunSpec(model=model, method=method, seq_len=16, device="sim:cpu"))
        for method in (
            prompt(tokens, prompt_tuning_init_text=TEXT, tokenizer_name_or_path=str(tokenizer)),
            prompt(tokens, prompt_tuning_init_text=TEXT, tokenizer_name_or_path="no-such/name"),
            prompt(tokens, prompt_tuning_init_text=TEXT),
            f"prompt-tuning:num_virtual_tokens={tokens}",
        )
    ]
    first = records[0]
    assert first.status == "ok", first.error
    assert first.params is not None
    assert first.params.trainable == tokens * 64
    for record in records[1:]:
        assert record.params == first.params
        assert record.memory.phases == first.memory.phases


def test_the_text_of_a_config_file(tokenizer: Path, tmp_path: Path) -> None:
    model = tiny.write(tmp_path)["llama"]
    config = {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": 5,
        "prompt_tuning_init": "TEXT",
        "prompt_tuning_init_text": TEXT,
    }
    for name in ("Langboat/bloom-1b4-zh", str(tokenizer)):
        file = tmp_path / "prompt.json"
        file.write_text(json.dumps({**config, "tokenizer_name_or_path": name}))
        cell = resolve(RunSpec(model=model, method=str(file)))
        assert cell.config is not None
        assert cell.config["tokenizer_name_or_path"] == name
        assert cell.config["prompt_tuning_init_text"] == TEXT
        assert build(cell).params.trainable == 5 * 64


def test_with_a_tokenizer_a_measured_prompt_begins_as_the_text(
    tokenizer: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    options = {"prompt_tuning_init_text": TEXT, "tokenizer_name_or_path": str(tokenizer)}
    model = tiny.write(tmp_path)["bloom"]
    cell = resolve(RunSpec(model=model, method=prompt(7, **options)))
    subject = build(cell, device="cpu", fill=partial(weights.fill, seed=0, device="cpu"))
    ids = AutoTokenizer.from_pretrained(tokenizer)(TEXT)["input_ids"][:7]
    words = subject.model.get_input_embeddings().weight[ids].float()
    (learned,) = [item for item in subject.model.parameters() if item.requires_grad]
    assert bool((learned == words).all())


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (prompt(8), "needs a prompt_tuning_init_text"),
        (prompt(8, prompt_tuning_init_text=""), "needs a prompt_tuning_init_text"),
        (prompt(8, prompt_tuning_init="WORDS"), "known: RANDOM, SAMPLE_VOCAB, TEXT"),
    ],
)
def test_a_text_that_is_not_there_is_one_line(method: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        resolve(RunSpec(model="opt-125m", method=method))
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_no_tokenizer_is_one_line(tokenizer: Path, tmp_path: Path) -> None:
    def asked(folder: Path, text: str = TEXT, *overrides: str) -> RunSpec:
        method = prompt(8, prompt_tuning_init_text=text, tokenizer_name_or_path=str(folder))
        return RunSpec(model="opt-125m", model_override=overrides, method=method)

    empty = tmp_path / "empty"
    empty.mkdir()
    for spec, words in (
        (asked(empty), "tokenizer fails"),
        (asked(tokenizer, "  "), "makes no token"),
        (asked(tokenizer, TEXT, "vocab_size=3", "pad_token_id=0"), "not one of the model's 3"),
    ):
        with pytest.raises(UsageError, match=words) as raised:
            resolve(spec)
        assert "\n" not in str(raised.value)


def test_code_in_a_tokenizer_folder_never_runs(tokenizer: Path) -> None:
    file = tokenizer / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings.pop("tokenizer_class", None)
    settings["auto_map"] = {"AutoTokenizer": ["mine.Mine", None]}
    file.write_text(json.dumps(settings))
    (tokenizer / "mine.py").write_text("raise SystemExit('ran')")
    method = prompt(
        4,
        prompt_tuning_init_text=TEXT,
        tokenizer_name_or_path=str(tokenizer),
        tokenizer_kwargs={"trust_remote_code": True},
    )
    with pytest.raises(UsageError, match="tokenizer fails"):
        resolve(RunSpec(model="opt-125m", method=method))
