"""What a kind of scenario brings: its data, codec, network, scores, tables and figures.

A kind is a room of its own: a folder beside this file whose `kind.py` defines KIND. Generic code
asks for it by name, and names none. What costs an import is imported where it is used.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pdmd.scenarios
from pdmd.config.sections import Data, Networks, ReleasedData
from pdmd.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from torch import Tensor

    from pdmd.data.prompts import Prompt
    from pdmd.models.mixture import GaussianMixture

Config = dict[str, Any]  # a run as it is written
Keys = frozenset[str]
MetricTable = tuple[list[str], str]  # metrics of record, caption


@dataclass(frozen=True)
class Prompted:
    """What a kind of pictures or clips with prompts brings further.

    Attributes:
        frames: of a sample, 1 of pictures, 0 where the data section says it; judged: labels that
            its judge tells;
        render: data section -> uint8 pictures or clips of both splits, with labels and captions;
        prompts: data section -> all of them, the null prompt last; labels: name -> number of
            values;
        metrics: (prompts, judge, held-out samples, their labels, evaluate=section) -> its scores;
        networks: (`evaluate.networks`, device) -> frozen networks beside features, LPIPS and CLIP;
        validated: (pictures, held-out samples, results) -> what metrics do under known damage;
        free_coverage: whether coverage leaves out prompts with too few samples;
        stratum: of a prompt, None of one that has none; absent where prompts have no strata.
    """

    frames: int
    judged: tuple[str, ...]
    render: Callable[[Any], dict[str, Tensor]]
    prompts: Callable[[Any], list[Prompt]]
    labels: Callable[[], dict[str, int]]
    metrics: Callable[..., Any]
    networks: Callable[[Networks, Any], dict[str, Any]]
    validated: Callable[[Mapping[str, Tensor], Tensor, Path], pd.DataFrame]
    free_coverage: bool = False
    stratum: Callable[[Prompt], str | None] | None = None

    def shown(self, x: Tensor) -> Tensor:
        """(N, 3, T, H, W) as metrics see it: pictures (N, 3, H, W), or clips."""
        return x[:, :, 0] if self.frames == 1 else x


@dataclass(frozen=True)
class Frozen:
    """What scores samples by frozen networks alone, where nothing is known of data but prompts.

    Attributes:
        features: (pictures (1, 3, T, H, W) in uint8, its prompt, `evaluate.networks`, folder of
            results, device) -> what frozen networks see in one sample.
        scores: (features, the teacher's or None, (N,) prompts) -> scores.
    """

    features: Callable[..., dict[str, Tensor]]
    scores: Callable[..., dict[str, float | None]]


def _missing(config: Config) -> None:
    """What a kind does not bring. Raises UserError."""
    raise UserError(f"data.kind: {config['data']['kind']}: expected one with classes")


@dataclass(frozen=True)
class Kind:
    """A kind of scenario.

    Attributes:
        name: of `data.kind`, and of the room; model: the `model.kind` that fits, or several;
        data: its `data` section; check: refuses values that do not fit one another; check_run: the
            same of a whole run; needs: of a run, key -> a user's file that must be there when a
            workflow starts;
        methods: kinds of methods that it has;
        evaluate, may_evaluate: keys of the evaluate section that it must and may have;
        prompts: how many samples of record are drawn for, 0 without; fidelity: the metric that
            training's path is compared at, None without such a path; known: metric -> number of
            known modes, by the data section;
        tables: names in the order of the report; metrics: table -> its metrics; figures: name ->
            what it is drawn from, names in report/registry.py; the function of that name in the
            room's figures.py draws it; further: the same of figures of the paper alone;
        headline: the table that says what it came to;
        recovered, equal, strata: metrics of the tables of those names;
        mixture: the exact law of the data, where it has one; classes, latent_size: of labelled
            latents, how many and how long;
        reads: files of its data folder that scores read;
        scorer: stage -> scores of samples; encode, classifier: of labelled data, write latents and
            train what scores them, from a resolved config; prompted, frozen: see there.
    """

    name: str
    model: str | tuple[str, ...]
    data: type[Data]
    tables: Sequence[str]
    figures: Mapping[str, tuple[str, ...]]
    metrics: Callable[[], Mapping[str, MetricTable]]
    evaluate: Keys
    may_evaluate: Keys = frozenset({"beside"})
    check: Callable[[Any, str], None] | None = None
    check_run: Callable[[Any, str], None] | None = None
    needs: Callable[[Any], Mapping[str, str]] = lambda run: {}
    headline: str | None = None
    further: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    methods: tuple[str, ...] = ("teacher", "distill")
    prompts: int = 0
    fidelity: str | None = None
    known: Callable[[Any], dict[str, int]] = lambda spec: {}
    recovered: Sequence[str] = ()
    equal: Sequence[str] = ()
    strata: Sequence[str] = ()
    mixture: Callable[[Any], GaussianMixture] | None = None
    classes: int = 0
    latent_size: Callable[[Any], int] = lambda data: 0
    real_samples: Callable[[Any], int] | None = None
    reads: Sequence[str] = ()
    scorer: Callable[[Any], Any] | None = None
    encode: Callable[[Config], None] = _missing
    classifier: Callable[[Config], None] = _missing
    prompted: Prompted | None = None
    frozen: Frozen | None = None

    @property
    def pretrained(self) -> bool:
        """Whether the base network is a released model, and data are prompts alone."""
        return issubclass(self.data, ReleasedData)

    @property
    def latent(self) -> bool:
        """Whether it trains on precomputed latents."""
        return self.mixture is None

    def figure(self, name: str) -> Callable[..., Figure]:
        """What draws one of its figures: the function of that name in the room's figures.py."""
        room = self.data.__module__.rpartition(".")[0]
        drawing: Callable[..., Figure] = getattr(import_module(f"{room}.figures"), name)
        return drawing


@cache
def kinds() -> dict[str, Kind]:
    """Every kind that has a room, by name."""
    by_name = {}
    for room in pkgutil.iter_modules(pdmd.scenarios.__path__):
        where = Path(str(getattr(room.module_finder, "path", ""))) / room.name / "kind.py"
        if room.ispkg and where.is_file():
            kind = import_module(f"pdmd.scenarios.{room.name}.kind").KIND
            by_name[kind.name] = kind
    return by_name


def kind_of(data: Data) -> Kind:
    """The kind of a `data` section."""
    return kinds()[data.kind]


def strata_of(kind: Kind, prompts: Sequence[Prompt]) -> list[str | None]:
    """The stratum of each prompt. Raises ValueError for a kind without strata."""
    if kind.prompted is None or kind.prompted.stratum is None:
        raise ValueError(f"data.kind: {kind.name}: expected one whose prompts have strata")
    return list(map(kind.prompted.stratum, prompts))


def prompted(name: str) -> Prompted:
    """What a kind of pictures or clips with prompts brings. Raises ValueError for others."""
    part = kinds()[name].prompted
    if part is None:
        raise ValueError(f"data.kind: {name}: expected one with prompts")
    return part
