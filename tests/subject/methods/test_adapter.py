"""Bottleneck adapters: where they sit, what they begin as, how many numbers they have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import CONFIGS

from profiler.bench import weights
from profiler.errors import UsageError
from profiler.execute import run
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.methods.adapter import ADAPTER
from profiler.subject.methods.layers import decoder_layers
from profiler.subject.subject import build

_LLAMA = {key: value for key, value in CONFIGS["llama"].items() if key != "model_type"}

#: Experts in every layer, some beside an expert that is shared, norms after the sublayers, a block
#: whose attention and feed-forward are parallel.
MODELS: dict[str, dict[str, Any]] = {
    **CONFIGS,
    "mixtral": {"model_type": "mixtral", **_LLAMA, "num_local_experts": 4},
    "qwen2-moe": {
        "model_type": "qwen2_moe",
        **_LLAMA,
        "num_experts": 4,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
    "gpt-oss": {"model_type": "gpt_oss", **_LLAMA, "num_local_experts": 4, "head_dim": 16},
    "phi": {"model_type": "phi", **_LLAMA, "num_key_value_heads": 4},
    "gemma2": {"model_type": "gemma2", **_LLAMA, "head_dim": 16},
}


def adapted(folder: Path, family: str, method: str = "adapter", **fields: Any) -> Any:
    """A small adapted model in memory, in evaluation mode."""
    file = folder / f"{family}.json"
    file.write_text(json.dumps(MODELS[family]))
    spec = RunSpec(
        model=str(file),
        method=method,
        weights_dtype="float32",
        seq_len=8,
        device="cpu",
        **fields,
    )
    return build(resolve(spec), device="cpu", fill=fill).model.eval()


def fill(model: torch.nn.Module) -> None:
    weights.fill(model, seed=0, device="cpu")


def last_hidden(model: Any) -> torch.Tensor:
    """What the last decoder layer passes on, of shape (1, 8, hidden_size)."""
    seen: list[Any] = []
    hook = decoder_layers(model)[-1][1].register_forward_hook(lambda *call: seen.append(call[2]))
    with torch.no_grad():
        model(input_ids=torch.arange(8)[None])
    hook.remove()
    hidden: torch.Tensor = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    return hidden.view(1, 8, -1)


def adapters(model: Any) -> list[Any]:
    return [module.get_submodule(ADAPTER) for module in model.modules() if hasattr(module, ADAPTER)]


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
@pytest.mark.parametrize("family", MODELS)
def test_an_adapted_model_begins_as_the_model_it_adapts(
    tmp_path: Path, family: str, placement: str
) -> None:
    model = adapted(tmp_path, family, f"adapter:placement={placement}")
    assert len(adapters(model)) == {"pfeiffer": 1, "houlsby": 2}[placement] * 2
    plain = adapted(tmp_path, family, "full")
    torch.testing.assert_close(last_hidden(model), last_hidden(plain), rtol=0, atol=0)


@pytest.mark.parametrize("family", sorted(MODELS.keys() - {"gemma2"}))
def test_what_it_adds_reaches_the_residual_stream_as_it_is(tmp_path: Path, family: str) -> None:
    """The last adapter's bias is added to what the layer passes on: nothing is in between, neither
    the residual itself nor an expert's weight."""
    model = adapted(tmp_path, family)
    before = last_hidden(model)
    with torch.no_grad():
        adapters(model)[-1][-1].bias.fill_(0.5)
    torch.testing.assert_close(last_hidden(model), before + 0.5)


def test_a_norm_after_the_sublayer_norms_what_is_added(tmp_path: Path) -> None:
    model = adapted(tmp_path, "gemma2")
    before = last_hidden(model)
    with torch.no_grad():
        adapters(model)[-1][-1].bias.fill_(0.5)
    changed = last_hidden(model) - before
    assert changed.abs().max() > 0
    assert not torch.allclose(changed, torch.full_like(changed, 0.5))


def test_the_attention_is_adapted_before_the_feed_forward_reads_it(tmp_path: Path) -> None:
    model = adapted(tmp_path, "llama", "adapter:placement=houlsby")
    before = last_hidden(model)
    with torch.no_grad():
        adapters(model)[-2][-1].bias.normal_()
    assert not torch.allclose(last_hidden(model), before)


def _count(model: str, method: str) -> int:
    return build(resolve(RunSpec(model=model, method=method))).params.trainable


@pytest.mark.parametrize(
    ("method", "size", "each"),
    [
        ("adapter", 768 // 16, 1),
        ("adapter:placement=houlsby", 768 // 16, 2),
        ("adapter:bottleneck_size=64", 64, 1),
        ("adapter:reduction_factor=2.5", 307, 1),
        ("adapter:reduction_factor=10000", 1, 1),
    ],
)
def test_counts_are_houlsbys(method: str, size: int, each: int) -> None:
    """2md + d + m of an adapter with bottleneck m at width d (arXiv 1902.00751, section 2.1)."""
    assert _count("opt-125m", method) == 12 * each * (2 * size * 768 + 768 + size)


def test_each_placement_has_its_own_non_linearity(tmp_path: Path) -> None:
    for method, kind in {
        "adapter": torch.nn.ReLU,
        "adapter:placement=houlsby": torch.nn.SiLU,
        "adapter:non_linearity=gelu": torch.nn.GELU,
    }.items():
        assert {type(adapter[1]) for adapter in adapters(adapted(tmp_path, "opt", method))} == {
            kind
        }


def test_adapters_have_the_adapters_dtype(tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        model = adapted(tmp_path, "opt", adapter_dtype=dtype)
        parameters = [
            parameter for adapter in adapters(model) for parameter in adapter.parameters()
        ]
        assert {parameter.dtype for parameter in parameters} == {getattr(torch, dtype)}
        assert last_hidden(model).dtype == torch.float32


def test_a_simulated_step_shows_them_as_adapters(tmp_path: Path) -> None:
    file = tmp_path / "opt.json"
    file.write_text(json.dumps(MODELS["opt"]))
    record = run(RunSpec(model=str(file), method="adapter", seq_len=8, quantization="nf4"))
    assert record.status == "ok", record.error
    modules = record.memory.modules
    path = f"model.decoder.layers.0.fc2.{ADAPTER}"
    for part in ("0", "2"):
        numbers = 64 * 4 + {"0": 4, "2": 64}[part]
        assert modules[f"{path}.{part}"]["parameters"] >= 4 * numbers
        assert modules[f"{path}.{part}"]["optimizer_state"] >= 2 * 4 * numbers


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("placement=left", "unknown placement 'left'"),
        ("non_linearity=cube", "unknown non_linearity 'cube'"),
        ("bottleneck_size=0", "integer of 1 or more"),
        ("bottleneck_size=8.5", "integer of 1 or more"),
        ("reduction_factor=-2", "number above 0"),
        ("reduction_factor=2,bottleneck_size=8", "not both"),
        ("bottlenek_size=8", "did you mean bottleneck_size"),
    ],
)
def test_a_wrong_option_is_one_line(options: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        resolve(RunSpec(model="opt-125m", method=f"adapter:{options}"))
    assert "\n" not in str(raised.value)
