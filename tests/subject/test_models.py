from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from profiler.errors import UsageError
from profiler.subject import models


@pytest.mark.parametrize("name", models.names())
def test_shipped_architecture_has_its_published_parameter_count(name: str) -> None:
    model = models.build(models.load(name), dtype=torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == models.parameter_count(
        name
    )


def test_override_changes_the_model() -> None:
    source = models.load("opt-125m", ("vocab_size=1000", "num_hidden_layers=1"))
    model = models.build(source, dtype=torch.bfloat16)
    assert model.get_input_embeddings().weight.shape[0] == 1000
    assert model.config.num_hidden_layers == 1


def test_folder_and_file_are_the_same_model(tmp_path: Path) -> None:
    config = {"model_type": "opt", "hidden_size": 32, "vocab_size": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder, file = models.load(str(tmp_path)), models.load(str(tmp_path / "config.json"))
    assert folder == file
    assert folder.config == config
    assert folder.name == tmp_path.name


@pytest.mark.parametrize(
    ("model", "overrides", "words"),
    [
        ("opt-6.7", (), "did you mean opt-6.7b"),
        ("./nowhere", (), "no model at"),
        ("opt-125m", ("vocab_size",), "is not KEY=VALUE"),
        ("opt-125m", ("vocabsize=3",), "did you mean vocab_size"),
        ("opt-125m", ("vocab_size=many",), "refuses the config"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    model: str, overrides: tuple[str, ...], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        models.build(models.load(model, overrides), dtype=torch.bfloat16)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '"text"', '{"hidden_size": 4}', '{"model_type": "no-such"}', "[" * 100_000],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError):
        models.build(models.load(str(tmp_path)), dtype=torch.bfloat16)


def test_code_of_a_config_never_runs(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}})
    )
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UsageError):
        models.build(models.load(str(tmp_path)), dtype=torch.bfloat16)
