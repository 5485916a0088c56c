"""What every executor on other machines needs: the call that runs there, and its answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from profiler.environment import decisive, environment
from profiler.errors import ProfilerError
from profiler.noise import hush

#: How often a task is tried again whose worker was lost: a node went down, or it takes its worker
#: down with it each time.
RETRIES = 2


def packed(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """The arguments of `call` for a call of `fn`."""
    return fn, args, kwargs, _libraries(), os.getcwd()  # noqa: PTH109


def call(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    libraries: dict[str, Any],
    folder: str,
) -> tuple[bool, Any]:
    """Call `fn` there, in the sweep's folder if there is one of that name.

    Returns:
        Whether it returned, and what it returned or raised: an executor that carries an exception
        itself puts its own story around it.
    """
    hush()
    with suppress(OSError):
        os.chdir(folder)
    for name, here in _libraries().items():
        if here != libraries[name]:
            what = "sources of profiler" if name == "profiler_sources" else name
            return False, ProfilerError(
                f"{os.uname().nodename} has {what} {here or 'not installed'}, and the sweep has "
                f"{libraries[name] or 'it not installed'}; install the same there"
            )
    try:
        return True, fn(*args, **kwargs)
    except ProfilerError as error:
        return False, error
    except Exception as error:
        return False, ProfilerError(f"{type(error).__name__}: {error}")


def answer(future: Future[Any], answered: tuple[bool, Any]) -> None:
    """Give a future what `call` returned."""
    returned, value = answered
    if returned:
        future.set_result(value)
    else:
        future.set_exception(value)


def _libraries() -> dict[str, Any]:
    found = environment()
    return {name: found[name] for name in decisive("")}
