"""The one exception family. `main()` of each command catches it, prints one line and exits."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ProfilerError(Exception):
    """Anything this package refuses or fails at, said in one line."""

    exit_code = 1


class UsageError(ProfilerError):
    """What was asked for is wrong: the message says what was wrong and what would be right."""

    exit_code = 2


class NotBuiltError(UsageError):
    """A value the contract names but no code stands behind yet: refused, never ignored."""


class UnsupportedError(ProfilerError):
    """The method and the model do not go together (BitFit on a model without biases)."""


class StoreError(ProfilerError):
    """A record or the folder of records cannot be read or written."""


def unknown(kind: str, value: object, known: Iterable[str], *, hint: str = "") -> UsageError:
    """A `UsageError` for a name that is not in a table, with the nearest names.

    >>> str(unknown("model", "opt-6.7", ["opt-6.7b", "gpt2"]))
    "unknown model 'opt-6.7'; did you mean opt-6.7b?"
    """
    names = sorted(known)
    text = str(value)
    near = difflib.get_close_matches(text.lower(), names, n=3, cutoff=0.5)
    if near:
        tail = f"did you mean {' or '.join(near)}?"
    elif len(names) <= 12:
        tail = f"known: {', '.join(names)}"
    else:
        tail = f"known: {', '.join(names[:12])}, and {len(names) - 12} more"
    return UsageError(f"unknown {kind} {text!r}; {tail}{hint}")
