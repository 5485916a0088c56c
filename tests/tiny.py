"""Small models of four families, as config files: seconds, not minutes, and every code path."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

CONFIGS: dict[str, dict[str, Any]] = {
    "opt": {
        "model_type": "opt",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 128,
        "vocab_size": 512,
        "max_position_embeddings": 256,
        "word_embed_proj_dim": 64,
    },
    "llama": {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 512,
        "max_position_embeddings": 256,
    },
    "gpt2": {
        "model_type": "gpt2",
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 256,
        "vocab_size": 512,
    },
    "bloom": {
        "model_type": "bloom",
        "hidden_size": 64,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 512,
    },
}


FAMILIES = ("opt", "llama", "gpt2", "bloom")


def beside_families(values: Iterable[str]) -> list[Any]:
    """Pairs of each value and each family, for `parametrize`.

    Every run takes each value on Llama and on another family in turn; the others are marked
    `whole_grid`.
    """
    others = [family for family in FAMILIES if family != "llama"]
    pairs = []
    for place, value in enumerate(values):
        for family in FAMILIES:
            usual = family in ("llama", others[place % len(others)])
            marks = () if usual else (pytest.mark.whole_grid,)
            pairs.append(pytest.param(value, family, marks=marks))
    return pairs


def write(folder: Path) -> dict[str, str]:
    """Write each config into a folder of its own; returns the paths by family."""
    paths = {}
    for name, config in CONFIGS.items():
        model = folder / f"tiny-{name}"
        model.mkdir(parents=True, exist_ok=True)
        (model / "config.json").write_text(json.dumps(config))
        paths[name] = str(model)
    return paths


#: Options that fit the small models, where a preset's are made for thousands of features.
_SMALL = {
    "c3a": "block_size=32",
    "gralora": "r=8",
    "road": "group_size=16",
    "shira": "r=8",
    "vblora": "vector_length=16",
    "waveft": "n_frequency=100",
}


def fitted(method: str) -> str:
    """A preset with options that fit the small models."""
    return f"{method}:{_SMALL[method]}" if method in _SMALL else method
