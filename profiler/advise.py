"""`python -m profiler.advise --model M --device D`: which methods fit, how large, how fast.

The answer goes to stdout, progress to stderr. All of it is simulated and predicted; nothing runs
on a GPU, and `--device local` only asks the driver what is free.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import profiler
from profiler import command, stdout
from profiler.errors import UsageError
from profiler.spec import RunSpec

if TYPE_CHECKING:
    from profiler.advisor.advice import Advice, Find, Question
    from profiler.advisor.results import Answer
    from profiler.record import Record

#: Asked of when none is named: one of each kind that people choose between.
METHODS = ("full", "lora", "qlora", "dora", "adalora", "vera", "ia3", "prompt-tuning")

FORMATS = ("table", "json")

_COMMAND = command.Command("profiler.advise", interrupted="interrupted")


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    result = command.Parser(
        prog="profiler.advise",
        usage="python -m profiler.advise --model MODEL --device DEVICE [flags]",
        description="Say which methods fit a card, the largest batch (or length) of each, how fast "
        "they are by prediction, and the cheapest change that makes one fit. Each answer is "
        "simulated whole: the number given fits, and the next one does not.",
        epilog="Exit status: 0, something fits; 1, nothing does; 2, wrong usage; 130, interrupted.",
        allow_abbrev=False,
    )
    result.add_argument("--model", help="as for profiler.sweep")
    result.add_argument(
        "--device", action="append", default=[], metavar="DEVICE",
        help="a GPU's name (rtx-4090, l40s, ...), may be repeated; or local: this machine's and "
        "what is free",
    )  # fmt: skip
    result.add_argument(
        "--methods", nargs="+", default=list(METHODS), metavar="METHOD",
        help=f"as --method of profiler.sweep (default: {' '.join(METHODS)})",
    )  # fmt: skip
    result.add_argument(
        "--vram", metavar="SIZE", help="what of the card's memory is yours, such as 22.5GiB"
    )
    result.add_argument(
        "--find", choices=("batch", "length", "both"), default="batch",
        help="what is made as large as fits (default: batch)",
    )  # fmt: skip
    result.add_argument("--seq-len", type=int, metavar="N", help="tokens (default: 1024)")
    result.add_argument(
        "--batch-size", type=int, metavar="N", help="with --find length (default: 1)"
    )
    result.add_argument(
        "--limit", type=int, metavar="N",
        help="the largest that is tried (default: batch 4096; the length that the model knows)",
    )  # fmt: skip
    for name in ("stack", "quantization", "checkpointing", "optimizer", "attention", "alloc-conf"):
        result.add_argument(f"--{name}", metavar="VALUE", help="as for profiler.sweep; then fixed")
    result.add_argument(
        "--output", type=Path, metavar="DIR",
        help="folder that keeps the records, the answers and a page of them (default: none)",
    )  # fmt: skip
    result.add_argument(
        "--workers", type=int, default=command.cores(), metavar="N",
        help="processes (default: the usable cores, here %(default)s)",
    )  # fmt: skip
    result.add_argument("--format", choices=FORMATS, default="table")
    result.add_argument(
        "--render", action="store_true",
        help="ask nothing: draw the page of the answers in --output again",
    )  # fmt: skip
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    result.add_argument("--version", action="version", version=f"profiler {profiler.__version__}")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1, 2 or 130."""
    return _COMMAND.run(_advise, arguments)


def _advise(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    if options.workers < 1:
        raise UsageError(f"--workers must be at least 1, not {options.workers}")
    if options.render:
        return _render(options.output)
    if not options.model or not options.device:
        raise UsageError("name a model and a card: --model llama-3.1-8b --device rtx-4090")
    questions = _questions(options)
    from profiler.advisor.advice import ranked
    from profiler.advisor.results import Answer

    found: dict[tuple[str, str], list[Advice]] = {}
    notes: dict[str, None] = {}
    given = _answers([asked for _, asked in questions], options.workers)
    for done, (index, one, records) in enumerate(given, 1):
        device, question = questions[index]
        found.setdefault((device, question.find), []).append(one)
        notes.update(dict.fromkeys(text for record in records for text in record.approximations))
        if options.output is not None:
            _keep(records, options.output)
        if not options.quiet:
            place = f" on {device}" if len(options.device) > 1 else ""
            what = f" ({question.find})" if options.find == "both" else ""
            _COMMAND.say(f"[{done}/{len(questions)}] {one.method}{place}{what}: {one.status}")
    keys = dict.fromkeys((device, question.find) for device, question in questions)
    answers = [
        Answer(device=device, find=find, advice=advice)
        for device, find in keys
        for advice in ranked(found[device, find])
    ]
    stdout.to_stdout(lambda: _write(answers, options))
    if options.output is not None:
        page = _page(answers, options, arguments, sorted(notes))
        if options.format == "table":
            stdout.to_stdout(lambda: print(f"page: {page}"))
        elif not options.quiet:
            _COMMAND.say(f"page: {page}")
    return 0 if any(one.advice.status == "fits" for one in answers) else 1


def _page(
    answers: Sequence[Answer],
    options: argparse.Namespace,
    arguments: Sequence[str],
    notes: list[str],
) -> Path:
    """Keep the answers, and draw their page."""
    import shlex

    from profiler.advisor import page, results
    from profiler.environment import environment

    kept = results.Results(
        model=options.model,
        command=shlex.join(["python", "-m", "profiler.advise", *arguments]),
        answers=list(answers),
        approximations=notes,
        environment=environment(answers[0].device),
    )
    results.write(kept, options.output)
    return page.build(kept, options.output)


def _render(folder: Path | None) -> int:
    from profiler.advisor import page, results

    if folder is None or not (folder / results.NAME).is_file():
        raise UsageError(f"--render needs --output, a folder with {results.NAME}")
    path = page.build(results.read(folder / results.NAME), folder)
    stdout.to_stdout(lambda: print(path))
    return 0


def _questions(options: argparse.Namespace) -> list[tuple[str, Question]]:
    """One for each card, what is searched, and method, checked before anything runs; with the
    card's name."""
    if options.find == "batch" and options.batch_size is not None:
        raise UsageError("--batch-size is what --find batch searches; use --find length with it")
    if options.find == "length" and options.seq_len is not None:
        raise UsageError("--seq-len is what --find length searches; use --find batch with it")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit must be at least 1, not {options.limit}")
    if options.limit is not None and options.find == "both":
        raise UsageError("--limit is of a batch or of a length; search one of them with it")
    finds: list[Find] = ["batch", "length"] if options.find == "both" else [options.find]
    return [
        question
        for device in dict.fromkeys(options.device)
        for find in finds
        for question in _of_card(options, device, find)
    ]


def _of_card(options: argparse.Namespace, device: str, find: Find) -> list[tuple[str, Question]]:
    from profiler.advisor.advice import Question
    from profiler.hardware import devices
    from profiler.resolve import check

    vram = options.vram
    if device == "local":
        from profiler.advisor.local_card import local_card

        found = local_card()
        device, vram = found.device, vram or str(found.free)
    elif device in (*devices.MEASURED, "sim:cpu"):
        raise UsageError(
            f"--device {device} cannot be advised on; name a GPU, such as rtx-4090, or local"
        )
    given = {
        name: getattr(options, name)
        for name in (
            "stack",
            "quantization",
            "checkpointing",
            "optimizer",
            "attention",
            "alloc_conf",
        )
        if getattr(options, name) is not None
    }
    specs = [
        RunSpec(
            model=options.model,
            method=method,
            device=device,
            vram=vram,
            batch_size=1 if options.batch_size is None else options.batch_size,
            seq_len=1024 if options.seq_len is None else options.seq_len,
            **given,
        )
        for method in dict.fromkeys(options.methods)
    ]
    for spec in specs:
        check(spec)
    limit = options.limit
    if limit is None:
        limit = 4096 if find == "batch" else _longest(options.model)
    return [(device, Question(spec, find, limit)) for spec in specs]


def _longest(model: str) -> int:
    """The positions that the architecture knows."""
    from profiler.subject import models

    config = models.load(model, ()).config
    for key in ("max_position_embeddings", "n_positions", "seq_length"):
        if isinstance(config.get(key), int):
            return int(config[key])
    return 2**17


def _answers(
    questions: Sequence[Question], workers: int
) -> Iterator[tuple[int, Advice, list[Record]]]:
    """As they come, each with its question's place."""
    from profiler.executors.local import start_server

    workers = min(workers, len(questions))
    if workers > 1:
        start_server(warm=True)
    from profiler.executors import executor

    pool = executor(workers)
    try:
        places = {pool.submit(_answer, one): index for index, one in enumerate(questions)}
        for future in as_completed(places):
            yield (places[future], *future.result())
    finally:
        pool.stop()


def _answer(question: Question) -> tuple[Advice, list[Record]]:
    """One method's answer, in whatever process."""
    from profiler.advisor.advice import advise
    from profiler.runner import run_cell

    return advise(question, run_cell)


def _keep(records: Sequence[Record], folder: Path) -> None:
    from profiler.store import Store

    store = Store(folder)
    store.prepare()
    for record in records:
        store.put(record)


def _write(answers: Sequence[Answer], options: argparse.Namespace) -> None:
    if options.format == "json":
        rows = [{"find": one.find, **one.advice.model_dump(mode="json")} for one in answers]
        print(json.dumps(rows, indent=1))
        return
    from profiler import terminal
    from profiler.advisor import printed

    for device, find in dict.fromkeys((one.device, one.find) for one in answers):
        advice = [one.advice for one in answers if (one.device, one.find) == (device, find)]
        heading = f"{options.model} on {device}, simulated; speed predicted"
        shown = printed.table(advice, find)
        print(terminal.text(sys.stdout, heading, shown, *printed.answer(advice, find)), end="")


if __name__ == "__main__":
    command.start(main)
