"""Colours, defined once. Figures and the style sheet take them from here.

One colour stands for one memory category in every figure and in both themes. The thirteen were
found by maximising the smallest distance in OKLab (Ottosson, 2020) between any two of them, with
normal sight and under full protanopia, deuteranopia and tritanopia (Machado, Oliveira and
Fernandes, 2009); pairs of the categories that are large in practice count more. Thirteen colours
cannot also all contrast with both a white and a dark page, so every filled shape has an outline
(`EDGE`) that does.
"""

from __future__ import annotations

from dataclasses import dataclass

from profiler.trace import CATEGORIES


@dataclass(frozen=True, slots=True)
class Role:
    """A colour by what it is for: its CSS variable, and its value in the two themes."""

    name: str
    light: str
    dark: str

    @property
    def css(self) -> str:
        """The value in a style; outside the page (a saved figure) the light one holds."""
        return f"var(--{self.name}, {self.light})"


CATEGORY_COLOURS: dict[str, str] = {
    "base_parameters": "#6a8bf2",
    "adapter_parameters": "#43cff9",
    "buffers": "#8fa1be",
    "quantization_state": "#5450d5",
    "gradients": "#ec6f0b",
    "activation_gradients": "#f9d036",
    "optimizer_state": "#cc2c06",
    "activations": "#6fc297",
    "logits_and_loss": "#a31e8c",
    "kv_cache": "#20524b",
    "inputs": "#89270e",
    "workspaces": "#d6d6d6",
    "temporaries": "#858687",
}

CATEGORY_LABELS: dict[str, str] = {
    "base_parameters": "base parameters",
    "adapter_parameters": "adapter parameters",
    "buffers": "buffers",
    "quantization_state": "quantization state",
    "gradients": "gradients",
    "activation_gradients": "activation gradients",
    "optimizer_state": "optimizer state",
    "activations": "activations",
    "logits_and_loss": "logits and loss",
    "kv_cache": "KV cache",
    "inputs": "inputs",
    "workspaces": "workspaces",
    "temporaries": "temporaries",
}

#: Phases are told apart by lightness alone; the first three are a training step's.
PHASE_COLOURS = ("#a9c4e4", "#5f86b8", "#2d5286", "#c8b98c", "#8f7c3f")

#: Series of points, each with a marker of its own besides: light, dark.
SERIES_COLOURS = (
    ("#0060a8", "#6db7ff"),
    ("#c25000", "#ffa25c"),
    ("#00795a", "#4fd3ab"),
    ("#9c3f86", "#f0a3dc"),
)

TEXT = Role("text", "#1b1f24", "#e6e9ee")
MUTED = Role("muted", "#565e69", "#a3acb9")
PAGE = Role("page", "#fdfdfe", "#13161b")
RAISED = Role("raised", "#f3f5f8", "#1c2128")
RULE = Role("rule", "#d9dee5", "#333b46")
EDGE = Role("edge", "#5c646f", "#b4bcc8")
LINK = Role("link", "#0b57b0", "#8ab8ff")
BAD = Role("bad", "#b3190e", "#ff9a8f")
GOOD = Role("good", "#17663a", "#7fd8a2")
CAPACITY = Role("capacity", "#c0140a", "#ff8075")
SIMULATED = Role("simulated", "#5b2a9d", "#cdb4ff")
MEASURED = Role("measured", "#0c5d5f", "#79dcd8")

ROLES = (TEXT, MUTED, PAGE, RAISED, RULE, EDGE, LINK, BAD, GOOD, CAPACITY, SIMULATED, MEASURED)


def light_of(css: str) -> str:
    """The light theme's colour of a `Role.css`; any other value is one already.

    >>> light_of(PAGE.css), light_of("#123456")
    ('#fdfdfe', '#123456')
    """
    return css.rpartition(", ")[2].removesuffix(")")


def category_role(category: str) -> Role:
    """The colour of a memory category; an unknown one (a later version's) has the temporaries'."""
    colour = CATEGORY_COLOURS.get(category, CATEGORY_COLOURS["temporaries"])
    name = category if category in CATEGORY_COLOURS else "temporaries"
    return Role("memory-" + name.replace("_", "-"), colour, colour)


def category_label(category: str) -> str:
    """How a category is written."""
    return CATEGORY_LABELS.get(category, category.replace("_", " "))


def phase_role(index: int) -> Role:
    """The colour of a step's phase, by its place in the figure's order."""
    index %= len(PHASE_COLOURS)
    return Role(f"phase-{index}", PHASE_COLOURS[index], PHASE_COLOURS[index])


def series_role(index: int) -> Role:
    """The colour of a series of points, by its place in the figure's legend."""
    index %= len(SERIES_COLOURS)
    return Role(f"series-{index}", *SERIES_COLOURS[index])


def roles() -> list[Role]:
    """Every colour of the page."""
    phases = [phase_role(index) for index in range(len(PHASE_COLOURS))]
    series = [series_role(index) for index in range(len(SERIES_COLOURS))]
    return [*ROLES, *(category_role(name) for name in CATEGORIES), *phases, *series]


def style_variables(theme: str) -> str:
    """The CSS custom properties of a theme, "light" or "dark"."""
    return " ".join(f"--{role.name}: {getattr(role, theme)};" for role in roles())
