"""The registry of claims, decided by what was run: a row a claim, its verdict computed."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pdmd.config.claims import Claim
from pdmd.errors import UserError
from pdmd.files import provenance
from pdmd.files.storage import reading
from pdmd.metrics.intervals import FEWEST, Paired, holm, paired
from pdmd.metrics.ranges import metric_range
from pdmd.report.differences import CERTAIN, changes
from pdmd.report.reading import read_scores
from pdmd.report.writing import write_table

if TYPE_CHECKING:
    import pandas as pd

SCORES = "metrics.json"
RECORDED = "scores.csv"  # of all methods and seeds, in docs/record
NOT_RUN = "not run"
NUMBERS = ["n", "effect_mean", "effect_low", "effect_high", "p"]
SHOWN = ["id", "claim", "place", "scale", *NUMBERS, "p_holm", "verdict", "files"]


@dataclass(frozen=True)
class Evidence:
    """What decides a claim.

    Attributes:
        files: of the seeds that all its methods have; name: the same in a word; test: of the
            differences that they give, None without such a seed.
    """

    files: tuple[Path, ...]
    name: str
    test: Paired | None


def evidence(claim: Claim, results: Path, there: Collection[Path] | None = None) -> Evidence:
    """Read the scores that decide a claim: of runs, or of runs that were recorded.

    Args:
        results: the folder that parts lie below; there: the files that may be read, None for all.
    Raises:
        UserError: a file is damaged, or has no such metric.
    """
    every = {need: _read(claim, results, need, there) for need in claim.needs}
    seeds = sorted(set.intersection(*(set(one.values) for one in every.values())))
    if not seeds:
        return Evidence((), "", None)
    method, other, *near = (
        [{claim.metric: every[need].values[seed]} for seed in seeds] for need in claim.sides
    )
    differences = changes(method, other, claim.metric, *near)
    files = dict.fromkeys(path for one in every.values() for path in map(one.path, seeds))
    name = _names(list(every.values()), seeds)
    return Evidence(tuple(files), name, tested(claim, differences))


@dataclass(frozen=True)
class Read:
    """One metric of a method, by seed.

    Attributes:
        folder: of its scenario; recorded: whether one file there has the scores of all methods.
    """

    folder: Path
    method: str
    values: dict[int, float]
    recorded: bool

    def path(self, seed: int) -> Path:
        """The file that a seed's value is from."""
        return self.folder / (RECORDED if self.recorded else f"{self.method}/seed{seed}/{SCORES}")


def _names(every: Sequence[Read], seeds: Sequence[int]) -> str:
    """The files of some methods' seeds, a word for each folder."""
    methods: dict[Path, list[str]] = {}
    recorded = {str(one.folder / RECORDED): None for one in every if one.recorded}
    for one in every:
        if not one.recorded:
            methods.setdefault(one.folder, []).append(one.method)
    runs = [
        f"{folder}/{_choice(names)}/seed{_choice(seeds)}/{SCORES}"
        for folder, names in methods.items()
    ]
    return " ".join([*recorded, *runs])


def _read(
    claim: Claim, results: Path, need: tuple[str, str], there: Collection[Path] | None
) -> Read:
    """The values of a claim's metric of a (part, method). Raises UserError for a damaged file."""
    part, method = need
    folder = results / part / claim.scenario
    recorded = there is None and (folder / RECORDED).exists()
    if recorded:
        return Read(folder, method, read_recorded(folder / RECORDED, method, claim.metric), True)
    paths = seed_scores(folder / method, there)
    values = {s: read_scores(path, [claim.metric])[claim.metric] for s, path in paths.items()}
    return Read(folder, method, values, False)


def read_recorded(path: Path, method: str, metric: str) -> dict[int, float]:
    """Seed -> a method's metric as a record has it, no seeds where it has no such method.

    Raises:
        UserError: the file is damaged, or has no such metric.
    """
    import pandas as pd

    with reading(path, "a record of scores"):
        frame = pd.read_csv(path)
        rows = frame[frame["method"] == method]
        pairs = zip(rows["seed"], rows[metric], strict=True)
        return {int(seed): float(value) for seed, value in pairs}


def tested(claim: Claim, differences: Sequence[float]) -> Paired:
    """The interval of a claim's differences, and p of what they differ by beyond its slack."""
    test = paired(differences, metric_range(claim.metric))
    if not claim.slack:
        return test
    worse = claim.slack if claim.direction == "greater" else -claim.slack
    return replace(test, p=paired([value + worse for value in differences]).p)


def seed_scores(folder: Path, there: Collection[Path] | None = None) -> dict[int, Path]:
    """Seed -> a method's scores, of seeds that have some, in their order.

    Args:
        there: the files that may be read, None for all.
    """
    paths = folder.glob(f"seed*/{SCORES}")
    named = {
        path.parent.name.removeprefix("seed"): path
        for path in paths
        if there is None or path in there
    }
    numbers = sorted(int(name) for name in named if name.isdecimal())
    return {number: named[str(number)] for number in numbers}


def _choice(values: Sequence[object]) -> str:
    """As a shell writes one of several names."""
    return str(values[0]) if len(values) == 1 else f"{{{','.join(map(str, values))}}}"


def verdict(claim: Claim, test: Paired | None, p_holm: float) -> str:
    """What the numbers say of a claim: holds, fails, undecided, or not run.

    Args:
        p_holm: p corrected for the number of tests, NaN where there is none.
    """
    if test is None:
        return NOT_RUN
    effect = (test.mean if claim.direction == "greater" else -test.mean) + claim.slack
    if not p_holm < CERTAIN:
        return "undecided"
    if effect < 0:
        return "fails"
    return "holds" if effect > claim.margin else "undecided"


def claims_table(claims: Sequence[Claim], found: Sequence[Evidence]) -> pd.DataFrame:
    """A row a claim: what is claimed, the paired test, its corrected p, the verdict, the files.

    effect: method less the other, by seed; of `nearer` the same of distances to the teacher.
    """
    import pandas as pd

    tests = [one.test for one in found]
    corrected = holm([math.nan if test is None else _counted(test) for test in tests])
    rows = []
    for claim, one, p_holm in zip(claims, found, corrected, strict=True):
        test = one.test or Paired(0, *[math.nan] * 4)
        shown = math.nan if math.isnan(test.p) else p_holm
        numbers = dict(zip(NUMBERS, astuple(test), strict=True))
        end = {"verdict": verdict(claim, one.test, shown), "files": one.name}
        rows.append({**asdict(claim), **numbers, "p_holm": shown, **end})
    return pd.DataFrame(rows, columns=list(rows[0]))


def _counted(test: Paired) -> float:
    """p as the correction counts it: a test that cannot tell is one of them nevertheless."""
    return 1.0 if test.n >= FEWEST and math.isnan(test.p) else test.p


def write_claims(
    claims: Sequence[Claim],
    results: Path,
    output: Path,
    there: Collection[Path] | None = None,
) -> None:
    """Write the table of claims, <output>.csv, .md, .tex, and what it was made from, .json.

    Args:
        results, there: as of `evidence`.
    Raises:
        UserError: there is no claim, or a file of scores is damaged.
    """
    if not claims:
        raise UserError(f"{output}: no claim: expected some of these results")
    found = [evidence(claim, results, there) for claim in claims]
    table = claims_table(claims, found)
    tests = int((table["n"] >= FEWEST).sum())
    caption = (
        "Claims and what decides them: mean difference and 95% interval over seeds, p of the paired"
        f" t test, and by Holm's method; tests: {tests}."
    )
    write_table(table, output, caption, SHOWN)
    made_from = {claim.id: one.files for claim, one in zip(claims, found, strict=True)}
    written = [f"{output.name}.{end}" for end in ("csv", "md", "tex")]
    config = {"claims": [asdict(claim) for claim in claims]}
    provenance.record_drawn(output.with_suffix(".json"), config, [], made_from, written)
