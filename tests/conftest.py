from __future__ import annotations

from hypothesis import settings

# Time is not what these properties are about, and a busy machine is no counterexample.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
