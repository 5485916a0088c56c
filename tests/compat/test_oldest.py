"""The oldest supported libraries: transformers 4.48.1 and peft 0.13.2, against measured runs.

Those of the group `a100-trainer` in `profiler/validation/cases`, which has their source.
"""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import transformers
from invariants import check_invariants
from packaging.version import Version
from tiny import fitted, write

from profiler.errors import UsageError
from profiler.execute import run
from profiler.spec import RunSpec
from profiler.subject import methods
from profiler.subject.methods.peft_method import known_peft_types
from profiler.validation import cases, compare

OLDEST = Version(transformers.__version__) < Version("4.49")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(Path(tmp_path_factory.mktemp("models")))


@pytest.mark.skipif(not OLDEST, reason="the published run had transformers 4.48.1")
@pytest.mark.parametrize("name", ["mistral-7b-full", "mistral-7b-lora-r16"])
def test_mistral_on_an_a100(name: str) -> None:
    group = cases.group("a100-trainer")
    (run_of_it,) = group.runs
    (entry,) = compare.entries(group, [group.case(name)], [run_of_it])
    record = run(entry.spec)
    assert record.status == "ok", record.error
    figures = {figure.metric: figure for figure in compare.figures(entry, record)}
    for metric in ("peak_allocated", "after_step_allocated"):
        assert figures[metric].bound == 0.001
        assert figures[metric].verdict == "within"


FAMILIES = ("opt", "llama", "gpt2", "bloom")
_NO_DEFAULT = "specify `target_modules`"

#: What these libraries do not do, by method and family ("" for each), and words of the reason.
UNSUPPORTED = {
    ("adaption-prompt", "opt"): "model type for adaption prompt",
    ("adaption-prompt", "gpt2"): "model type for adaption prompt",
    ("adaption-prompt", "bloom"): "model type for adaption prompt",
    ("bitfit", "llama"): "no parameter that BitFit would train",
    ("boft", "gpt2"): "Conv1D",
    ("hra", "gpt2"): "Conv1D",
    ("ln-tuning", "opt"): _NO_DEFAULT,
    ("loha", ""): _NO_DEFAULT,
    ("lokr", ""): _NO_DEFAULT,
    ("oft", ""): _NO_DEFAULT,
    ("poly", "gpt2"): "Conv1D",
    ("xlora", ""): "saved LoRA adapters",
}

#: Where the real step fails with these libraries.
FAILED = {
    # peft asks Llama's attention for sizes that transformers 4.48 keeps in the config alone.
    ("adaption-prompt", "llama"): "has no attribute 'hidden_size'",
    # peft hands Llama a tuple for a cache, which transformers 4.48 takes no longer.
    ("prefix-tuning", "llama"): "get_seq_length",
    # These leave float32 before a 16-bit layer.
    ("hra", "opt"): "mixed types",
    ("hra", "llama"): "mixed types",
    ("hra", "bloom"): "mixed types",
    ("ln-tuning", "llama"): "mixed types",
    # Trainer asks a Poly model whether the model takes num_items_in_batch; OPT does not.
    ("poly", "opt"): "num_items_in_batch",
}


def _known(method: str) -> bool:
    """Whether the installed peft has the method's type; one without a type is no peft's."""
    return getattr(methods.get(method), "peft_type", None) in (None, *known_peft_types())


@pytest.mark.skipif(not OLDEST, reason="tests/bench covers today's libraries")
@pytest.mark.parametrize(
    ("method", "family"),
    [
        (method, family)
        for method in methods.names()
        for family in (FAMILIES if _known(method) else FAMILIES[:1])
    ],
)
def test_every_method_runs(models: dict[str, str], method: str, family: str) -> None:
    # With these versions Trainer passes num_items_in_batch to BLOOM, which refuses it.
    stack = "script" if family == "bloom" else "trainer"
    spec = RunSpec(model=models[family], method=fitted(method), seq_len=16, stack=stack)
    if method == "lora-fa":
        with pytest.raises(UsageError, match=r"peft 0\.16\.0"):
            run(spec)
        return
    record = run(spec)
    pair = (method, family)
    reason = UNSUPPORTED.get(pair) or UNSUPPORTED.get((method, ""))
    if not _known(method):
        reason = f"the installed peft {peft.__version__} has no "
    if reason:
        assert record.status == "unsupported"
        assert reason in (record.error or "")
    elif pair in FAILED:
        assert record.status == "failed"
        assert FAILED[pair] in (record.error or "")
    else:
        assert record.status == "ok", record.error
        check_invariants(record)
