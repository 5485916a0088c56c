"""Imported by the fork server only, first: it answers no Ctrl-C and ends with its parent."""

from __future__ import annotations

import signal

from profiler.executors.orphans import die_with_parent

signal.signal(signal.SIGINT, signal.SIG_IGN)
die_with_parent()
