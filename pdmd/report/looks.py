"""One name and one colour for each method, in every table and figure.

Colours are from Okabe and Ito's palette, told apart by the colour-blind; each method also has its
own marker and dash, so that a figure reads in grey.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from pdmd.config.sections import Run

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE, GREY = "#C9B800", "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"


@dataclass(frozen=True)
class Look:
    """How a method is shown.

    Attributes:
        label: in figures; colour, marker, dash: matplotlib's.
    """

    label: str
    colour: str
    marker: str
    dash: str


LOOKS = {
    "teacher": Look("teacher", BLACK, "*", "-"),
    "teacher4": Look("teacher, 4 steps", GREY, "X", ":"),
    "teacher4-shift3": Look("teacher, 4 steps of shift 3", GREY, "d", ":"),
    "teacher4-shift2": Look("teacher, 4 steps of shift 2", GREY, "h", ":"),
    "teacher4-even": Look("teacher, 4 even steps", GREY, "v", ":"),
    "teacher4-auto": Look("teacher, 4 chosen steps", GREY, "p", ":"),
    "teacher1": Look("teacher, 1 step", GREY, "o", ":"),
    "teacher-again": Look("teacher, other noise", BLACK, "x", ":"),
    "teacher-guided-again": Look("teacher, CFG 3, other noise", BLACK, "+", ":"),
    "base": Look("base network", GREY, "P", "-"),
    "dmd1": Look("DMD, 1 step", ORANGE, "o", "-"),
    "dmd": Look("DMD, vanilla", SKY, "s", "--"),
    "dmd2": Look("DMD2 (SGTS)", VERMILION, "^", "-"),
    "phased2": Look("Phased, 2 × 2", BLUE, "D", "-"),
    "phased4": Look("Phased, 4 × 1", GREEN, "v", "-."),
    "phased2-biased": Look("Phased, 2 × 2, biased", PURPLE, "X", ":"),
    "phased2-disjoint": Look("Phased, 2 × 2, disjoint", YELLOW, "h", ":"),
    "phased2-online": Look("Phased, 2 × 2, online", SKY, "d", "--"),
    "dmd1-normalised": Look("DMD, 1 step, normalised", ORANGE, "p", "--"),
    "dmd-normalised": Look("DMD, vanilla, normalised", SKY, "p", "--"),
    "dmd2-normalised": Look("DMD2, normalised", VERMILION, "p", "--"),
    "phased2-normalised": Look("Phased, 2 × 2, normalised", BLUE, "p", "--"),
    "phased4-normalised": Look("Phased, 4 × 1, normalised", GREEN, "p", "--"),
    "teacher-guided": Look("teacher, CFG 3", BLACK, "P", "-"),
    "dmd2-guided": Look("DMD2, CFG 3", VERMILION, "P", "--"),
    "phased2-guided": Look("Phased, 2 × 2, CFG 3", BLUE, "P", "--"),
    "dmd2-long": Look("DMD2, 3 × updates", VERMILION, "<", "-"),
    "phased2-long": Look("Phased, 2 × 2, 3 × updates", BLUE, "<", "-"),
    "dmd2-lora": Look("DMD2, LoRA", VERMILION, "d", ":"),
    "phased2-lora": Look("Phased, 2 × 2, LoRA", BLUE, "d", ":"),
    "dmd2-lora-fast": Look("DMD2, LoRA, 5 × rate", VERMILION, "h", ":"),
    "dmd2-even": Look("DMD2, even steps", VERMILION, "X", "-."),
    "phased2-even": Look("Phased, 2 × 2, even steps", BLUE, "X", "-."),
    "dmd2-auto": Look("DMD2, chosen steps", VERMILION, "H", "--"),
    "phased2-auto": Look("Phased, 2 phases, chosen steps", BLUE, "H", "--"),
    "dmd2-adaptive": Look("DMD2, adaptive weights", VERMILION, "*", "-."),
    "phased2-adaptive": Look("Phased, 2 × 2, adaptive weights", BLUE, "*", "-."),
    "phased2-adaptive-strata": Look("Phased, 2 × 2, adaptive by stratum", BLUE, "1", "-."),
    "dmd2-range": Look("DMD2, chosen range", VERMILION, "o", ":"),
    "phased2-range": Look("Phased, 2 × 2, chosen ranges", BLUE, "o", ":"),
    "dmd2-last-exit": Look("DMD2, last exit", ORANGE, ">", "--"),
    "dmd2-one-exit": Look("DMD2, one exit", ORANGE, "<", "--"),
    "dmd2-projected": Look("DMD2, projected", VERMILION, "s", "-."),
    "phased2-projected": Look("Phased, 2 × 2, projected", BLUE, "^", "-."),
    "dmd2-literal": Look("DMD2, Eq. 10's weight", VERMILION, "D", ":"),
    "phased2-literal": Look("Phased, 2 × 2, Eq. 10's weight", BLUE, "v", ":"),
    "tdm4": Look("TDM's rule, 4 × 1", PURPLE, "D", "--"),
    "phased2-forwards": Look("Phased, 2 × 2, DMD2's calls", BLUE, "8", "-"),
    "dmd2-reuse": Look("DMD2, reused rollouts", VERMILION, "v", "--"),
    "phased2-reuse": Look("Phased, 2 × 2, reused rollouts", BLUE, "h", "--"),
    "full": Look("full interval, Eq. 4", GREEN, "o", "-"),
    "unbiased": Look("unbiased on (.5, 1], Eq. 13", BLUE, "s", "--"),
    "biased": Look("biased on (.5, 1]", PURPLE, "^", ":"),
}
_TAKEN = {(shown.colour, shown.marker) for shown in LOOKS.values()}
_SPARE = [  # filled markers, that none above has
    Look("", colour, marker, "--")
    for marker in (">", "H", "8", "<", "d", "h")
    for colour in (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
    if (colour, marker) not in _TAKEN
]


BOUND = {sign: sign.replace(" ", "\u00a0") for sign in (" × ", " ↑", " ↓")}  # with no break

_labels: dict[str, str] = {}  # of methods of overlays
_places: dict[str, int] = {}  # of those of them whose spare look another has


def name_methods(runs: Iterable[Run]) -> None:
    """Call methods by the labels that their runs give, in what is drawn from now on.

    Of methods that would share a spare look, later ones have the next that is free.
    """
    used: set[int] = set()
    for run in runs:
        call(run.method, run.label)
        if run.method in LOOKS:
            continue
        first = _place(run.method)
        order = [(first + i) % len(_SPARE) for i in range(len(_SPARE))]
        _places[run.method] = next((place for place in order if place not in used), first)
        used.add(_places[run.method])


def call(method: str, label: str | None) -> None:
    """Call a method by a label, if it has one."""
    if label is not None:
        _labels[method] = label


def look(method: str) -> Look:
    """The look of a method; a new name gets a spare one, by itself by the name alone."""
    if method in LOOKS:
        return LOOKS[method]
    spare = _SPARE[_places.get(method, _place(method))]
    return Look(_labels.get(method, method), spare.colour, spare.marker, spare.dash)


def title(method: str, letters: int) -> str:
    """A method's label in lines of so many letters at most, of which none parts "4 × 1"."""
    return wrapped(look(method).label, letters)


def wrapped(text: str, letters: int) -> str:
    """A text in lines of so many letters, if its words allow; signs stay with their words."""
    for sign, bound in BOUND.items():
        text = text.replace(sign, bound)
    return textwrap.fill(text, letters, break_long_words=False).replace("\u00a0", " ")


def _place(method: str) -> int:
    return sum(method.encode()) % len(_SPARE)
