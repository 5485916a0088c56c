"""The simulated bench over the registry of methods: parts sum to the whole, figures are stable."""

from __future__ import annotations

from pathlib import Path

import pytest
from invariants import check_invariants
from tiny import beside_families, fitted, write

from profiler.errors import UsageError
from profiler.execute import run
from profiler.record import Record
from profiler.spec import RunSpec
from profiler.subject import methods


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


def simulated(model: str, **fields: object) -> Record:
    record = run(RunSpec(**{"model": model, "seq_len": 32, "device": "a100-80gb", **fields}))  # type: ignore[arg-type]
    assert record.status == "ok", record.error
    assert record.source == "simulated"
    return record


#: What is not there to simulate, by method and family ("" for each), and words of the reason.
UNSUPPORTED = {
    ("adaption-prompt", "opt"): "Unsupported model type for adaption prompt",
    ("adaption-prompt", "bloom"): "Unsupported model type for adaption prompt",
    ("beft", "gpt2"): "no default target_modules",
    ("beft", "bloom"): "no default target_modules",
    ("bitfit", "llama"): "no parameter that BitFit would train",
    ("ln-tuning", "opt"): "specify `target_modules`",
    ("osf", "gpt2"): "nothing to train",
    ("xlora", ""): "saved LoRA adapters",
    # GPT-2's linear layers are transformers' own, which these types of peft do not adapt.
    **{
        (method, "gpt2"): "Conv1D"
        for method in (
            "boft",
            "c3a",
            "delora",
            "glora",
            "hra",
            "lily",
            "loha",
            "lokr",
            "miss",
            "oft",
            "peanut",
            "poly",
            "psoft",
            "road",
            "shira",
        )
    },
}
#: What must be installed for a method, as its absence is put into words.
MISSING = {
    "adamss": "scikit-learn is required",
    "shadow": "has no SHADOW",
    "supertuning": "has no SUPERTUNING",
}


@pytest.mark.parametrize(("method", "family"), beside_families(methods.names()))
def test_every_method_sums_up(models: dict[str, str], method: str, family: str) -> None:
    spec = RunSpec(model=models[family], method=fitted(method), seq_len=32, device="a100-80gb")
    reason = UNSUPPORTED.get((method, family)) or UNSUPPORTED.get((method, ""))
    if reason and fitted(method) != method:  # it is the given options' fault
        with pytest.raises(UsageError, match=reason):
            run(spec)
        return
    record = run(spec)
    if method in MISSING and record.status == "unsupported":
        assert MISSING[method] in (record.error or "")
        return
    if reason:
        assert record.status == "unsupported"
        assert reason in (record.error or "")
        return
    assert record.status == "ok", record.error
    check_invariants(record)
    assert record.fits is not None
    assert record.memory.device_total is not None
    assert record.fits.headroom == record.fits.capacity - record.memory.device_total


@pytest.mark.parametrize("device", ["t4", "sim:cpu"])
def test_the_same_cell_twice_is_the_same_record(models: dict[str, str], device: str) -> None:
    first, second = (simulated(models["llama"], method="qlora", device=device) for _ in range(2))
    assert first == second


def test_what_a_method_keeps_shows_in_its_category(models: dict[str, str]) -> None:
    full = simulated(models["llama"], method="full", weights_dtype="float32", seq_len=4)
    assert full.params is not None
    held = full.memory.at_peak
    # In float32 gradients are as large as the weights, and Adam's two moments twice that; the
    # allocator rounds each of some twenty tensors up to 512 bytes.
    weights = 4 * full.params.total
    assert weights <= held["base_parameters"] <= 1.1 * weights
    assert 2 * weights <= held["optimizer_state"] <= 2.2 * weights
    assert held["adapter_parameters"] == 0

    lora = simulated(models["llama"], method="lora").memory.at_peak
    assert lora["adapter_parameters"] > 0
    assert lora["quantization_state"] == 0
    qlora = simulated(models["llama"], method="qlora").memory.at_peak
    assert qlora["quantization_state"] > 0
    assert simulated(models["llama"], use_cache=True).memory.at_peak["kv_cache"] > 0
    assert simulated(models["llama"], use_cache=False).memory.at_peak["kv_cache"] == 0


def test_foreach_square_roots_are_the_temporaries_of_full_fine_tuning(
    models: dict[str, str],
) -> None:
    fused = simulated(models["llama"], method="full", optimizer="adamw-fused", seq_len=2)
    foreach = simulated(models["llama"], method="full", optimizer="adamw", seq_len=2)
    # One square root for each gradient of a parameter group; the norms' group is another.
    assert foreach.memory.at_peak["temporaries"] > 0.95 * foreach.memory.at_peak["gradients"]
    assert fused.memory.phases["optimizer"] < foreach.memory.phases["optimizer"]


def test_loops_differ_by_what_stays_bound(models: dict[str, str]) -> None:
    peaks = {
        loop: simulated(models["llama"], stack="script", loop=loop, use_cache=False).memory
        for loop in ("trainer", "step-function", "script")
    }
    trainer, function, script = (peaks[loop] for loop in ("trainer", "step-function", "script"))
    # Outputs that outlive the backward are there in the optimizer step; a script's until the next.
    assert function.phases["optimizer"] > trainer.phases["optimizer"]
    assert script.after_step_allocated is not None
    assert function.after_step_allocated is not None
    assert script.after_step_allocated > function.after_step_allocated
    assert script.phases["forward"] > function.phases["forward"]


def test_checkpointing_trades_activations_for_recomputation(models: dict[str, str]) -> None:
    plain = simulated(models["llama"], seq_len=128, use_cache=False)
    assert plain.flops is not None
    assert plain.flops.phases["recompute"] == 0
    for kind in ("reentrant", "non-reentrant"):
        checkpointed = simulated(models["llama"], seq_len=128, checkpointing=kind)
        assert checkpointed.flops is not None
        forward = plain.flops.phases["forward"]
        assert checkpointed.flops.phases["forward"] == forward
        assert 0.4 * forward < checkpointed.flops.phases["recompute"] < forward
        # transformers makes the embedding's output require a gradient, and with it come the first
        # layer's input gradients that nothing uses.
        assert checkpointed.flops.phases["backward"] > plain.flops.phases["backward"]
        assert checkpointed.memory.at_peak["activations"] < plain.memory.at_peak["activations"]


def test_flops_of_frozen_weights_have_no_weight_gradient(models: dict[str, str]) -> None:
    """Full: the backward is twice the forward (input and weight gradients), but for the first
    layer's input; LoRA: about once (attention's own is 2.5 times): frozen weights need none."""
    full = simulated(models["opt"], method="full", seq_len=128).flops
    lora = simulated(models["opt"], method="lora:r=1", seq_len=128).flops
    assert full is not None
    assert lora is not None
    assert full.phases["backward"] == pytest.approx(2 * full.phases["forward"], rel=0.1)
    assert lora.phases["backward"] < 1.4 * lora.phases["forward"]


def test_padding_materialises_a_mask(models: dict[str, str]) -> None:
    """Unmasked attention is flash's; a mask is not for flash, and lives as long as the layers."""
    bare, padded = (
        simulated(models["opt"], padded=padded, seq_len=64, method="full")
        for padded in (False, True)
    )
    assert bare.time is not None
    assert padded.time is not None
    assert any("flash_attention" in kernel.name for kernel in bare.time.kernels)
    assert not any("flash_attention" in kernel.name for kernel in padded.time.kernels)
    assert any("efficient_attention" in kernel.name for kernel in padded.time.kernels)


def test_what_does_not_fit_is_an_answer_with_its_reason(models: dict[str, str]) -> None:
    record = run(RunSpec(model="opt-6.7b", method="full", seq_len=8, device="t4"))
    assert record.status == "oom"
    assert record.answered
    assert record.error is not None
    assert "out of memory in the" in record.error
    assert record.fits is not None
    assert record.fits.headroom < 0
    check_invariants(record)


@pytest.mark.parametrize(
    ("paging", "resident"), [("paged-adamw-32bit", "adamw-fused"), ("paged-lion-32bit", "lion")]
)
def test_paged_state_is_not_the_allocators(
    models: dict[str, str], paging: str, resident: str
) -> None:
    wide = {"model_override": ("hidden_size=1024", "intermediate_size=1024")}
    paged, plain = (
        simulated(models["llama"], method="lora:r=128", optimizer=optimizer, **wide).memory
        for optimizer in (paging, resident)
    )
    assert paged.outside_allocator["paged_state"] > 0
    assert "paged_state" not in plain.outside_allocator
    total = paged.at_peak["optimizer_state"] + paged.outside_allocator["paged_state"]
    assert total == pytest.approx(plain.at_peak["optimizer_state"], rel=0.05)


def test_accumulation_adds_no_gradients(models: dict[str, str]) -> None:
    once, twice = (
        simulated(models["llama"], method="full", seq_len=2, grad_accumulation=count)
        for count in (1, 2)
    )
    assert twice.flops is not None
    assert once.flops is not None
    assert twice.flops.phases["forward"] == 2 * once.flops.phases["forward"]
    assert once.memory.at_peak["gradients"] > 0
    assert twice.memory.phases["optimizer"] == once.memory.phases["optimizer"]
