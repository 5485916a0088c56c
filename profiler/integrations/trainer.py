"""A callback for `transformers.Trainer`: what its steps take, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from profiler.files import replace_file
from profiler.integrations.watch import Watch
from profiler.record import Record

#: The record's file in the trainer's `output_dir`.
FILE = "peft_profile.json"


class TrainerCallback(transformers.TrainerCallback):
    """Watches a `Trainer`'s training as `profiler.watch` does, and writes `peft_profile.json`.

    A step is timed from `on_step_begin` to the optimizer's end: loading data, evaluating and saving
    are not in it. The record is written to `output_dir` by the main process when training ends; if
    it breaks off by an error, there is none, and the hooks stay until the next training begins or
    `close` is called.

    Args:
        trace: as for `profiler.watch`.

    Attributes:
        record: the latest training's, None before.
    """

    def __init__(self, *, trace: bool = False) -> None:
        self.record: Record | None = None
        self._trace = trace
        self._watch: Watch | None = None

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **rest: Any
    ) -> None:
        self.close()
        self._watch = Watch(model, rest.get("optimizer"), trace=self._trace)
        self._watch.__enter__()

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self._watch is not None:
            self._watch.step_begins()

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self._watch is None:
            return
        self.close()
        if self.record is not None and state.is_world_process_zero:
            file = Path(args.output_dir) / FILE
            replace_file(file, (self.record.to_json() + "\n").encode())

    def close(self) -> None:
        """Stop watching; the record is of what was seen."""
        if self._watch is not None:
            watch, self._watch = self._watch, None
            watch.__exit__(None, None, None)
            self.record = watch.record
