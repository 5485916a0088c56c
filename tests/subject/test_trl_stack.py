"""The `trl` stack beside TRL itself: its defaults, its casts, its head and a real SFTTrainer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
import transformers
from agreement import tracked
from real_trainer import described, watch

from profiler.bench.measured import prepare
from profiler.execute import run
from profiler.record import Memory
from profiler.resolve import Cell, resolve
from profiler.spec import RunSpec
from profiler.subject import kbit, models
from profiler.subject.stacks import STACKS
from profiler.subject.subject import build
from profiler.subject.workloads import fused_head

trl = pytest.importorskip("trl")

EXPERTS = {
    "model_type": "mixtral",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 512,
    "num_local_experts": 4,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = Path(tmp_path_factory.mktemp("models"))
    paths = tiny.write(folder)
    (folder / "mixtral.json").write_text(json.dumps(EXPERTS))
    return {**paths, "mixtral": str(folder / "mixtral.json")}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fetched or reported."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("CI", "1")


def settings(folder: Path, **more: Any) -> Any:
    return trl.SFTConfig(
        str(folder),
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **more,
    )


def test_defaults_are_those_of_its_settings(tmp_path: Path) -> None:
    config = settings(tmp_path)
    stack = STACKS["trl"]
    assert config.bf16
    assert stack.autocast == "bfloat16"
    assert config.activation_checkpointing
    assert not config.gradient_checkpointing_kwargs  # left to transformers: non-reentrant
    assert stack.checkpointing == "non-reentrant"
    assert config.optim == "adamw_torch_fused"
    assert stack.optimizer == "adamw-fused"
    assert config.max_grad_norm == RunSpec(model="opt-125m").grad_clip
    assert (config.loss_type, config.packing, config.activation_offloading) == ("nll", False, False)
    assert not config.use_liger_kernel
    assert config.torch_empty_cache_steps is None


@dataclass
class Real:
    """What a real SFTTrainer did, as the tracker saw it."""

    trainer: Any
    memory: Memory


def train(cell: Cell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Real:
    """Two steps of SFTTrainer on the cell's model, loaded by its path."""
    import peft
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    spec = cell.spec
    saved = str(folder / "model")
    transformers.AutoModelForCausalLM.from_config(models.config(cell.model)).save_pretrained(saved)
    quantization = None
    if spec.quantization != "none":
        assert spec.quantization is not None
        assert spec.compute_dtype is not None
        quantization = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=spec.quantization.removesuffix("-dq"),
            bnb_4bit_use_double_quant=spec.quantization.endswith("-dq"),
            bnb_4bit_compute_dtype=getattr(torch, spec.compute_dtype),
        )
    peft_config = None
    if cell.config is not None:
        options = dict(cell.config)
        kind = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[options.pop("peft_type")]
        peft_config = kind(**options)
    words = Tokenizer(WordLevel({"<eos>": 0, "a": 1}, unk_token="<eos>"))
    sequence = {"input_ids": [1] * spec.seq_len, "labels": [1] * spec.seq_len}
    # Loaded by name, it is in float32 unless told otherwise.
    dtype = {} if spec.weights_dtype == "float32" else {"dtype": spec.weights_dtype}
    trainer = trl.SFTTrainer(
        saved,
        settings(
            folder / "out",
            per_device_train_batch_size=spec.batch_size,
            max_steps=2,
            max_length=None,
            model_init_kwargs=dtype,
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=Dataset.from_list([sequence] * 2 * spec.batch_size),
        processing_class=transformers.PreTrainedTokenizerFast(
            tokenizer_object=words, eos_token="<eos>", pad_token="<eos>"
        ),
        peft_config=peft_config,
        quantization_config=quantization,
    )
    return Real(trainer, watch(trainer, monkeypatch))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "method", "fields"),
    [
        ("llama", "lora", {}),
        ("opt", "full", {"weights_dtype": "float32", "batch_size": 2}),
        ("gpt2", "lora:use_dora=true", {"quantization": "nf4"}),
        ("llama", "prompt-tuning", {"weights_dtype": "float32"}),
        ("mixtral", "lora:target_modules=q_proj", {}),
    ],
)
def test_a_real_trainer_takes_this_step(
    folders: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    method: str,
    fields: dict[str, Any],
) -> None:
    spec = RunSpec(
        model=folders[family], method=method, stack="trl", device="cpu", seq_len=24, **fields
    )
    cell = resolve(spec)
    subject, step = prepare(cell)
    real = train(cell, tmp_path, monkeypatch)
    theirs = real.trainer

    assert described(subject.model) == described(theirs.model)
    assert type(step.optimizer) is type(theirs.optimizer.optimizer)
    assert [
        (len(group["params"]), group.get("fused"), group.get("foreach"))
        for group in step.optimizer.param_groups
    ] == [
        (len(group["params"]), group.get("fused"), group.get("foreach"))
        for group in theirs.optimizer.param_groups
    ]
    assert checkpointing(subject.model) == checkpointing(theirs.model)
    ours = tracked(spec).memory
    # Beside the step it keeps a few numbers to log.
    for phase, peak in real.memory.phases.items():
        assert ours.phases[phase] == pytest.approx(peak, abs=160), phase


def checkpointing(model: Any) -> list[Any]:
    return [
        (path, module.gradient_checkpointing, module._gradient_checkpointing_func.keywords)
        for path, module in model.named_modules()
        if getattr(module, "gradient_checkpointing", False)
    ]


@pytest.mark.parametrize("family", ["opt", "llama", "gpt2", "bloom"])
def test_casts_back_what_trl_does(folders: dict[str, str], family: str) -> None:
    from trl.experimental.utils import peft_module_casting_to_bf16

    fields = {"method": "qlora", "device": "cpu", "seq_len": 8, "autocast": "bfloat16"}
    spec = RunSpec(model=folders[family], kbit_prepare="peft", **fields)  # type: ignore[arg-type]
    ours, theirs = (prepare(resolve(spec))[0].model for _ in range(2))
    before = described(ours)
    kbit.cast_back(ours)
    peft_module_casting_to_bf16(theirs)
    assert described(ours) == described(theirs) != before
    simulated = build(resolve(spec.replace(kbit_prepare="trl", device="sim:cpu"))).model
    assert described(simulated) == described(theirs)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 8 tokens by 128 words, here and in TRL."""
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    monkeypatch.setattr(fused_head, "TOKENS", 8)
    monkeypatch.setattr(fused_head, "VOCABULARY", 128)
    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", 8)
    monkeypatch.setattr(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 128)


@pytest.mark.parametrize("more", [{}, {"final_logit_softcapping": 5.0, "logit_scale": 0.5}])
@pytest.mark.parametrize("casts", [False, True])
def test_the_head_computes_what_trls_does(
    folders: dict[str, str], small_tiles: None, more: dict[str, float], casts: bool
) -> None:
    source = models.load(folders["llama"])
    results = []
    for add in (_add_theirs, lambda model: fused_head.add(model, cuda=False)):
        torch.manual_seed(0)
        model: Any = transformers.AutoModelForCausalLM.from_config(models.config(source))
        for name, value in more.items():
            setattr(model.config, name, value)
        add(model)
        ids = torch.randint(512, (2, 13))
        labels = ids.clone()
        labels[0, 7:] = -100
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=casts):
            outputs = model(input_ids=ids, labels=labels, fused_lm_head=True)
        outputs.loss.backward()
        results.append(
            {
                **{name: outputs[name] for name in ("loss", "log_probs", "entropy", "is_top1")},
                "head": model.lm_head.weight.grad,
                "words": model.model.embed_tokens.weight.grad,
            }
        )
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, msg=name)


def _add_theirs(model: Any, *, cuda: bool = False) -> None:
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))


@pytest.mark.parametrize(
    ("method", "fields"), [("lora", {}), ("full", {"batch_size": 2, "padded": True})]
)
def test_on_a_gpu_the_head_allocates_what_trls_does(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch, method: str, fields: dict[str, Any]
) -> None:
    """TRL's own head, simulated, its Triton kernels left out: they write to what is there."""
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    spec = RunSpec(
        model=folders["llama"], method=method, stack="trl", device="a100-80gb", seq_len=64, **fields
    )
    ours = run(spec)

    class Kernel:
        def __getitem__(self, grid: Any) -> Any:
            return lambda *args, **kwargs: None

    without = SimpleNamespace(cdiv=lambda *numbers: 0)
    monkeypatch.setattr(chunked_logprob, "triton", without, raising=False)
    monkeypatch.setattr(chunked_logprob, "_use_triton", lambda device: True)
    monkeypatch.setattr(utils, "_use_triton", lambda device: True)
    monkeypatch.setattr(chunked_logprob, "_forward_kernel", Kernel())
    monkeypatch.setattr(chunked_logprob, "_backward_kernel", Kernel())
    monkeypatch.setattr(chunked_logprob, "_addmm_fp32", lambda total, left, right: None)
    monkeypatch.setattr(fused_head, "add", _add_theirs)
    theirs = run(spec)
    assert theirs.status == ours.status == "ok", theirs.error
    assert ours.memory.phases == theirs.memory.phases
    assert ours.memory.peak_reserved == theirs.memory.peak_reserved
