"""What `--method` may say: presets, adapter configs, files with a class, several joined."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
from agreement import assert_same_bytes, both
from tiny import write

from profiler.errors import UsageError
from profiler.execute import run
from profiler.method_choice import choose_method
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject import methods
from profiler.subject.methods import registry
from profiler.subject.subject import build

OWN = """
from profiler.subject.methods import Method
from profiler.subject.methods.peft_method import PeftMethod

class SmallLora(PeftMethod):
    peft_type = "LORA"
    defaults = {"r": 2, "target_modules": "all-linear"}

nothing = 3
"""


@pytest.fixture
def llama(tmp_path: Path) -> str:
    return write(tmp_path / "models")["llama"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return file


@pytest.mark.parametrize(
    "method",
    [
        "lora&ia3",
        "lora:r=4&lora:r=2",
        "prompt-tuning&lora",
        "qlora&ia3",
        "adalora&ia3",
        "lora&adapter",
        'lora:target_modules=["q_proj"],modules_to_save=["lm_head"]',
        "lora:target_modules=q_proj+v_proj,layers_to_transform=[1]",
        "lora:target_modules=.*layers.1.*q_proj",
    ],
)
def test_what_is_joined_or_chosen_agrees_with_the_real_step(llama: str, method: str) -> None:
    measured, simulated = both(model=llama, method=method)
    assert_same_bytes(measured, simulated)


def test_adapters_on_the_weights_of_experts_agree(tmp_path: Path) -> None:
    config = {
        "model_type": "mixtral",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 512,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    measured, simulated = both(
        model=str(tmp_path),
        method='lora:r=4,lora_dropout=0,target_modules=[],target_parameters=["mlp.experts.down_proj"]',
    )
    assert_same_bytes(measured, simulated)
    assert measured.params is not None
    # Two layers, an A of experts * r rows for all experts, and a B of as many columns.
    assert measured.params.trainable == 2 * (4 * 4) * (64 + 96)


def test_joined_methods_train_what_each_trains_alone(llama: str) -> None:
    def count(method: str) -> int:
        return build(resolve(RunSpec(model=llama, method=method))).params.trainable

    assert count("lora&ia3") == count("lora") + count("ia3")
    assert count("lora:r=4&lora:r=2") == count("lora:r=4") + count("lora:r=2")
    assert count("norm-tuning&lora") == count("norm-tuning") + count("lora")


def test_joined_methods_must_agree_on_what_they_bring() -> None:
    with pytest.raises(UsageError, match="different optimizer: lora-fa and paged-adamw-32bit"):
        choose_method("qlora&lora-fa")
    assert choose_method("lora&qlora").method.quantization == "nf4-dq"


def test_an_ampersand_inside_json_joins_nothing() -> None:
    choice = choose_method('lora:target_modules=["a&b"]')
    assert choice.options["target_modules"] == ["a&b"]


def test_every_type_of_peft_has_a_method(tmp_path: Path) -> None:
    from profiler.subject.methods.peft_method import known_peft_types, of_type

    for peft_type in known_peft_types():
        method = of_type(peft_type)
        assert getattr(method, "peft_type", None) == peft_type
        assert method is not None
        assert method.quantization is None
    assert of_type("NO_SUCH") is None


def test_a_class_in_a_file_is_a_method(llama: str, own: Path) -> None:
    preset = f"{own}:SmallLora"
    record = run(RunSpec(model=llama, method=f"{preset}:r=4", seq_len=8, device="rtx-4090"))
    assert record.status == "ok", record.error
    assert record.spec["method"]["options"]["r"] == 4
    assert record.params is not None
    alone = resolve(RunSpec(model=llama, method="lora:r=4"))
    assert record.params.trainable == build(alone).params.trainable


def test_the_id_of_an_own_method_is_its_files_content(llama: str, own: Path) -> None:
    spec = RunSpec(model=llama, method=f"{own}:SmallLora")
    first = resolve(spec).id
    moved = own.with_name("elsewhere") / own.name
    moved.parent.mkdir()
    moved.write_text(OWN)
    assert (
        resolve(spec.replace(method=f"{moved}:SmallLora")).id.split("-")[-1] == first.split("-")[-1]
    )
    own.write_text(OWN.replace('"r": 2', '"r": 3'))
    assert resolve(spec).id.split("-")[-1] != first.split("-")[-1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own.py", "name the class"),
        ("own.py:Missing", "has no class Missing"),
        ("own.py:nothing", "has no class nothing"),
        ("missing.py:X", "cannot read"),
        ("broken.py:X", "running broken.py fails: ZeroDivisionError"),
    ],
)
def test_a_wrong_file_is_one_line(own: Path, name: str, said: str) -> None:
    own.with_name("broken.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=said) as caught:
        choose_method(str(own.with_name(name)))
    assert "\n" not in str(caught.value)


def test_another_package_registers_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    target = "profiler.subject.methods.ia3:IA3"
    point = metadata.EntryPoint("elsewhere", target, registry.ENTRY_POINTS)
    broken = metadata.EntryPoint("no-method", "json:dumps", registry.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point, broken])
    assert getattr(methods.get("elsewhere"), "peft_type", None) == "IA3"
    with pytest.raises(UsageError, match="no Method"):
        methods.get("no-method")
    with pytest.raises(UsageError, match="did you mean elsewhere"):
        methods.get("elsewher")


def test_a_plain_module_takes_an_adapter() -> None:
    """As in the tutorials: `LoraConfig(target_modules=["0"])` on an `nn.Sequential`; two adapters,
    one switched off, one merged."""
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(10, 10), torch.nn.ReLU(), torch.nn.Linear(10, 2))
    method = methods.get("lora")
    options = {"r": 8, "target_modules": ["0"], "init_lora_weights": False}
    config = method.config(options, net, given=frozenset(options))
    x = torch.randn(3, 10)
    before = net(x)
    adapted = method.apply(
        net,
        config,
        adapter_dtype=torch.float32,
        device="cpu",
    ).eval()
    trained = {name for name, one in adapted.named_parameters() if one.requires_grad}
    assert sum(adapted.get_parameter(name).numel() for name in trained) == 8 * 20
    assert not torch.equal(adapted(x), before)
    with adapted.disable_adapter():
        assert torch.equal(adapted(x), before)
    unmerged = adapted(x)
    merged = adapted.merge_and_unload()(x)
    torch.testing.assert_close(merged, unmerged)


def test_a_mixture_of_saved_adapters_agrees(llama: str, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(llama))
    lora = methods.get("lora")
    config = lora.config({"r": 4, "target_modules": ["q_proj"]}, model, given=frozenset())
    import torch

    saved = lora.apply(model, config, adapter_dtype=torch.float32, device="cpu")
    saved.save_pretrained(tmp_path / "saved")
    adapters = json.dumps({"0": str(tmp_path / "saved"), "1": str(tmp_path / "saved")})
    measured, simulated = both(model=llama, method=f"xlora:adapters={adapters}")
    assert_same_bytes(measured, simulated)
    assert resolve(RunSpec(model=llama, method="xlora")).unsupported
