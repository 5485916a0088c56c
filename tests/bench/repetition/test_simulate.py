"""A trace that is written by repetition is the trace that the whole model gives."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from agreement import resolved
from tiny import CONFIGS, fitted

from profiler.analysis import again
from profiler.bench.loaded import Loaded
from profiler.bench.repetition.errors import NotPeriodicError
from profiler.bench.repetition.simulate import simulate_by_repetition
from profiler.execute import run
from profiler.record import Params
from profiler.resolve import Cell
from profiler.spec import RunSpec
from profiler.subject import methods
from profiler.subject.methods.lora import Lora
from profiler.trace import Trace

LAYERS = {"gpt2": "n_layer", "bloom": "n_layer"}

#: Methods whose layers or steps follow no pattern that is looked for; all others' must.
MAY_BE_REFUSED = frozenset(["adalora", "cpt", "delta-lora", "lily", "loha", "osf", "tinylora"])

#: Methods that every run takes: trained parts in layers, outside of them, and all of the model.
USUAL = ("lora", "ia3", "full", "prefix-tuning")


def model(folder: Path, family: str, depth: int, **changes: Any) -> str:
    path = folder / f"{family}-{depth}.json"
    path.write_text(
        json.dumps({**CONFIGS[family], LAYERS.get(family, "num_hidden_layers"): depth, **changes})
    )
    return str(path)


def spec(model: str, **fields: Any) -> RunSpec:
    return RunSpec(**{"model": model, "seq_len": 24, "device": "l40s", **fields})


def repeated(cell: Cell) -> tuple[Trace, Params]:
    """By repetition, however few the layers are."""
    return simulate_by_repetition(whole(cell), share=99.0)


def whole(cell: Cell) -> Loaded:
    return Loaded(cell, again.simulated_device(cell.record_spec))


def assert_same(cell: Cell) -> None:
    all_layers = whole(cell)
    (one, params), other = repeated(cell), all_layers.trace()
    for field in dataclasses.fields(Trace):
        assert getattr(one, field.name) == getattr(other, field.name), field.name
    assert params == all_layers.subject.params


@pytest.mark.parametrize(
    ("method", "depth"),
    [
        pytest.param(
            method,
            depth,
            marks=() if method in USUAL and depth == 8 else (pytest.mark.whole_grid,),
        )
        for method in methods.names()
        for depth in (8, 9, 13)
    ],
)
def test_every_method_is_the_same_or_is_refused(tmp_path: Path, method: str, depth: int) -> None:
    cell = resolved(spec(model(tmp_path, "llama", depth), method=fitted(method)))
    try:
        assert_same(cell)
    except NotPeriodicError:
        assert method in MAY_BE_REFUSED


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("opt", {"method": "bitfit", "stack": "script", "optimizer": "adamw"}),
        ("llama", {"method": "qlora", "stack": "trl", "checkpointing": "non-reentrant"}),
        pytest.param("bloom", {"optimizer": "adafactor"}, marks=pytest.mark.whole_grid),
        pytest.param("gpt2", {"method": "full", "steps": 2}, marks=pytest.mark.whole_grid),
        pytest.param(
            "llama",
            {"grad_accumulation": 2, "checkpointing": "reentrant", "use_cache": True},
            marks=pytest.mark.whole_grid,
        ),
        pytest.param(
            "llama", {"device": "sim:cpu", "optimizer": "adamw"}, marks=pytest.mark.whole_grid
        ),
        pytest.param(
            "llama",
            {"attention": "eager", "padded": True, "optimizer": "adamw-8bit"},
            marks=pytest.mark.whole_grid,
        ),
    ],
)
def test_families_and_training_configurations(
    tmp_path: Path, family: str, fields: dict[str, Any]
) -> None:
    assert_same(resolved(spec(model(tmp_path, family, 7), **fields)))


def test_long_lists_are_cut_as_the_whole_models_are(tmp_path: Path) -> None:
    """A multi-tensor kernel takes so many tensors: launches are no proportion of the depth."""
    assert_same(resolved(spec(model(tmp_path, "llama", 24), optimizer="adamw", method="full")))


def test_layers_trained_at_one_end_are_found(tmp_path: Path) -> None:
    assert_same(resolved(spec(model(tmp_path, "llama", 13), method="last-k:k=2")))


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        # What no shallow model shows: one of the layers has none, or another rank.
        ("lora:target_modules=q_proj+v_proj,layers_to_transform=[0,1,2,3,4,5,6,7,9,10,11,12]", {}),
        ('lora:rank_pattern={"layers.8.self_attn.q_proj":4}', {}),
        ("last-k:k=9", {}),
    ],
)
def test_a_layer_that_is_not_as_the_others_is_seen(
    tmp_path: Path, method: str, changes: dict[str, Any]
) -> None:
    cell = resolved(spec(model(tmp_path, "llama", 13, **changes), method=method))
    with pytest.raises(NotPeriodicError):
        repeated(cell)


def test_the_record_is_the_same_and_says_how_it_was_made(tmp_path: Path) -> None:
    cell = spec(model(tmp_path, "llama", 18))
    one, other = run(cell), run(cell, full_trace=True)
    assert one.traced == "by repetition of layers"
    assert other.traced == "whole: asked for"
    one.traced = other.traced = None
    assert one.to_json() == other.to_json()


def test_a_shallow_model_is_traced_whole_and_the_record_says_why(tmp_path: Path) -> None:
    assert run(spec(model(tmp_path, "llama", 4))).traced == (
        "whole: 4 layers are too few to gain from it"
    )


def test_what_does_not_qualify_is_traced_whole_and_the_record_says_why(tmp_path: Path) -> None:
    made = spec(model(tmp_path, "llama", 18), method="adalora")
    record, full = run(made), run(made, full_trace=True)
    assert record.status == "ok"
    assert record.traced is not None
    assert record.traced.startswith("whole: ")
    record.traced = full.traced = None
    assert record.to_json() == full.to_json()


@pytest.mark.parametrize("method", ["lora", "ia3", "full"])
def test_the_method_is_not_put_on_the_whole_model(tmp_path: Path, method: str) -> None:
    all_layers = whole(resolved(spec(model(tmp_path, "llama", 24), method=method)))
    simulate_by_repetition(all_layers)
    assert "subject" not in vars(all_layers)


class KeepsInOneLayer(Lora):
    """What no shallow model of few layers shows."""

    def apply(self, model: Any, config: Any, **how: Any) -> Any:
        adapted = super().apply(model, config, **how)
        for name, module in adapted.named_modules():
            if name.endswith("layers.8.self_attn"):
                module.register_forward_hook(self.keep)
        return adapted

    def keep(self, module: Any, inputs: Any, outputs: Any) -> None:
        module.last = outputs[0].float()


class OtherDefaults(Lora):
    """No code of its own."""

    defaults = {**Lora.defaults, "r": 4}


def test_a_subclass_with_code_of_its_own_says_itself_what_it_follows_from(tmp_path: Path) -> None:
    assert OtherDefaults.per_module
    assert not KeepsInOneLayer.per_module
    (tmp_path / "mine.py").write_text(f"from {__name__} import KeepsInOneLayer\n")
    made = spec(model(tmp_path, "llama", 18), method=f"{tmp_path / 'mine.py'}:KeepsInOneLayer")
    assert run(made).traced == "whole: its layers differ, and not in a regular order"
