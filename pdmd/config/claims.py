"""The registry of claims: what is claimed of methods, and which numbers decide it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pdmd.config.complaints import refusal
from pdmd.config.schema import check
from pdmd.config.typed import Schema, build, key, schema
from pdmd.config.yaml_files import read_mapping
from pdmd.files.storage import fingerprint
from pdmd.metrics.ranges import RANGES

FILE = Path("config/claims.yaml")
ROOT = "results"  # what parts lie below
MOST = 1000  # claims
LETTERS = 500  # of a sentence
TEACHER = "teacher"  # the method that some claims are measured from
NAME = "[A-Za-z0-9_-]+"  # of a scenario, a method, a folder


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim: a method differs from another, seed by seed, in one metric of one scenario."""

    id: str = key("letters, digits, dashes; of each claim its own", pattern="[A-Za-z0-9-]+")
    claim: str = key("the sentence", minLength=1, maxLength=LETTERS)
    place: str = key("of the paper, where it is claimed", minLength=1, maxLength=LETTERS)
    scale: Literal["toy", "small", "tiny", "real"] = key("of the models that it is tested on")
    part: str = key(
        "folder below `results` that the scenario lies in, such as `science/mixture`; empty for"
        " `results` itself",
        pattern=f"({NAME}(/{NAME})*)?",
        maxLength=LETTERS,
    )
    scenario: str = key("its name", pattern=NAME, maxLength=60)
    metric: str = key("of `metrics.json`", minLength=1, maxLength=60)
    method: str = key("that something is claimed of", pattern="[a-z0-9-]+", maxLength=60)
    against: str = key("the method it is compared with", pattern="[a-z0-9-]+", maxLength=60)
    against_part: str | None = key(
        "where that lies, and with `nearer` the teacher, if elsewhere: of the same scenario with"
        " the same seeds",
        pattern=f"({NAME}(/{NAME})*)?",
        maxLength=LETTERS,
        absent=None,
        null=True,
    )
    direction: Literal["greater", "less", "nearer"] = key(
        "the method's value is `greater` or `less` than the other's, or its distance to the value"
        " of the scenario's `teacher` of the same seed is less (`nearer`)"
    )
    margin: float = key(
        "the smallest mean difference that counts", least=0, most=1_000_000, absent=0.0
    )
    slack: float = key(
        "what the method may be worse by: the test is of the difference beyond that, so that one"
        " that is as good `holds` where its interval lies within; not with a margin",
        least=0,
        most=1_000_000,
        absent=0.0,
    )

    @property
    def sides(self) -> tuple[tuple[str, str], ...]:
        """(part, method) of the method, of the other, and with `nearer` of the teacher."""
        other = self.part if self.against_part is None else self.against_part
        teacher = ((other, TEACHER),) if self.direction == "nearer" else ()
        return (self.part, self.method), (other, self.against), *teacher

    @property
    def needs(self) -> tuple[tuple[str, str], ...]:
        """The same, each once: whose scores decide it."""
        return tuple(dict.fromkeys(self.sides))


def claims_schema() -> Schema:
    """The JSON schema of the file."""
    listed = {"type": "array", "maxItems": MOST, "items": schema(Claim)}
    properties = {"claims": listed}
    of_file: Schema = {"type": "object", "additionalProperties": False, "required": ["claims"]}
    return {**of_file, "properties": properties}


def read_claims(path: Path) -> list[Claim]:
    """The claims of a file, in its order.

    Raises:
        UserError: one line that names the file, the claim's key, its value and what was expected.
    """
    content = read_mapping(path)
    check(content, claims_schema(), path)
    claims = [build(Claim, one) for one in content["claims"]]
    known: set[str] = set()
    for number, claim in enumerate(claims):
        where = f"claims.{number}"
        if claim.id in known:
            raise refusal(path, f"{where}.id", claim.id, "an id that no other claim has")
        if claim.metric not in RANGES:
            raise refusal(path, f"{where}.metric", claim.metric, "a metric with a known range")
        if claim.sides[0] == claim.sides[1]:
            raise refusal(path, f"{where}.against", claim.against, "another method")
        if claim.margin and claim.slack:
            raise refusal(path, f"{where}.slack", claim.slack, "0 beside a margin")
        known.add(claim.id)
    return claims


def registered(root: Path) -> list[Claim]:
    """The claims of a repository, none where it has no registry. Raises UserError."""
    path = root / FILE
    return read_claims(path) if path.exists() else []


def part_of(results: str) -> str | None:
    """The part that a results folder is; None for one that is neither `results` nor below it."""
    path = Path(results)
    if path == Path(ROOT):
        return ""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else None


def belonging(
    claims: Iterable[Claim], results: str, methods: Mapping[str, Iterable[str]]
) -> list[Claim]:
    """The claims that a configuration decides.

    Args:
        results: its folder; methods: of each scenario that it runs.
    """
    part = part_of(results)
    return [
        claim
        for claim in claims
        if {one for one, _ in claim.needs} == {part}
        and {name for _, name in claim.needs} <= set(methods.get(claim.scenario, ()))
    ]


def check_planned(
    claims: Iterable[Claim], ids: Sequence[str], planned: str | None, path: Path
) -> list[Claim]:
    """The claims of these ids, in the order of the ids.

    Args:
        planned: the digest that a job was planned with, None for any.
    Raises:
        UserError: there is no such claim, or they are others than planned.
    """
    by_id = {claim.id: claim for claim in claims}
    for name in ids:
        if name not in by_id:
            raise refusal(path, "claims", name, "the id of a claim")
    chosen = [by_id[name] for name in ids]
    if planned not in (None, digest(chosen)):
        expected = f"{str(planned)[:12]}, the claims that this job was planned with"
        raise refusal(path, "claims", digest(chosen)[:12], expected)
    return chosen


def digest(claims: Iterable[Claim]) -> str:
    """The digest of what is claimed."""
    values: list[dict[str, Any]] = [asdict(claim) for claim in claims]
    return fingerprint(values)
