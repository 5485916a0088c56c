"""Parameter counts to the unit, and what a method says when it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.errors import UsageError
from profiler.resolve import resolve
from profiler.spec import RunSpec
from profiler.subject.subject import build

#: BLOOM-1.4B zh: (method, trainable, total), as published in the tutorial series that adapts
#: Langboat/bloom-1b4-zh with each method of peft.
BLOOM = [
    ("bitfit", 544_768, 1_303_111_680),
    ("prompt-tuning:num_virtual_tokens=10", 20_480, 1_303_132_160),
    (
        "p-tuning:num_virtual_tokens=10,encoder_hidden_size=1024",
        5_267_456,
        1_308_379_136,
    ),
    ("prefix-tuning:num_virtual_tokens=10", 983_040, 1_304_094_720),
    (
        "prefix-tuning:num_virtual_tokens=10,prefix_projection=true,encoder_hidden_size=2048",
        205_641_728,
        1_508_753_408,
    ),
    (
        'lora:r=8,target_modules=".*\\\\.1.*query_key_value",modules_to_save=["word_embeddings"]',
        95_225_856,
        1_398_337_536,
    ),
    ("ia3", 344_064, 1_303_455_744),
]


@pytest.mark.parametrize(("method", "trainable", "total"), BLOOM)
def test_counts_of_bloom(method: str, trainable: int, total: int) -> None:
    params = build(resolve(RunSpec(model="bloom-1b4-zh", method=method))).params
    assert (params.trainable, params.total) == (trainable, total)


def test_a_quantised_model_counts_the_numbers_it_stands_for() -> None:
    plain = build(resolve(RunSpec(model="opt-125m", method="lora"))).params
    packed = build(resolve(RunSpec(model="opt-125m", method="lora", quantization="nf4"))).params
    assert packed == plain


def test_qlora_adapts_the_attention_of_every_family() -> None:
    for model, expected in {
        "opt-125m": {"q_proj", "k_proj", "v_proj", "out_proj"},
        "llama-3.2-1b": {"q_proj", "k_proj", "v_proj", "o_proj"},
        "gpt2": {"c_attn", "c_proj"},
        "bloom-560m": {"query_key_value", "dense"},
    }.items():
        subject = build(resolve(RunSpec(model=model, method="qlora")))
        adapted = {name.split(".lora_")[0].rpartition(".")[2] for name in subject.adapter_names}
        assert adapted == expected
        assert not any("mlp" in name for name in subject.adapter_names)


def test_one_name_is_a_list_of_one_where_a_list_is_due() -> None:
    """To peft a string of `modules_to_save` is its letters, each the end of some module's path."""
    one, listed = (
        resolve(RunSpec(model="opt-125m", method=f"lora:modules_to_save={names}"))
        for names in ("lm_head", '["lm_head"]')
    )
    assert one.config == listed.config
    assert one.config is not None
    assert one.config["modules_to_save"] == ["lm_head"]
    assert build(one).params == build(listed).params


def test_bitfit_on_a_model_without_biases_is_unsupported_with_the_reason() -> None:
    cell = resolve(RunSpec(model="llama-3.2-1b", method="bitfit"))
    assert "LlamaForCausalLM" in cell.unsupported


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("loraa", "did you mean lora"),
        ("lora:rr=8", "did you mean r"),
        ("lora:r=0", "integer of 1 or more"),
        ("lora:r=x", "integer of 1 or more"),
        ("lora:r", "KEY=VALUE"),
        ("lora:r=8,r=8", "given twice"),
        ("lora:target_modules=nope", "matches no module of OPTForCausalLM"),
        ("lora:target_modules=nope+no", "matches no module of OPTForCausalLM"),
        ('lora:target_modules=["q_proj"', "no JSON"),
        ('lora:target_modules="("', "no regular expression"),
        ("full:r=8", "no option"),
        ("./nowhere.json", "no adapter config"),
    ],
)
def test_a_wrong_method_is_one_line(method: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        resolve(RunSpec(model="opt-125m", method=method))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{",
        '{"r": 8}',
        '{"peft_type": 3}',
        '{"peft_type": "LORAX"}',
        '{"peft_type": "LORA", "no_such_option": 1}',
        '{"peft_type": "LORA", "target_modules": ["nope"]}',
    ],
)
def test_a_malformed_adapter_config_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        resolve(RunSpec(model="opt-125m", method=str(file)))
    assert "\n" not in str(raised.value)
    assert str(tmp_path) not in str(raised.value)
