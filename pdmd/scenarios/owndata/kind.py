"""A user's own pictures or clips, with their prompts: to fit a small model, or to score on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdmd.config.complaints import refusal
from pdmd.config.sections import PATH, PromptedData, Run
from pdmd.config.typed import key
from pdmd.errors import UserError
from pdmd.scenarios.dataless.kind import METRICS, features, scores
from pdmd.scenarios.kind import Frozen, Kind, Prompted

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from pdmd.data.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Folder(PromptedData):
    """Pictures or clips of a folder."""

    source: str = key(
        "the folder: `metadata.jsonl` (`file_name`, and the prompt), or a .txt beside each",
        minLength=1,
        maxLength=PATH,
    )
    column: str = key(
        "of the prompts in `metadata.jsonl`", absent="prompt", minLength=1, maxLength=PATH
    )
    frames: int = key(
        "1 of pictures; of clips so many, evenly spread over each", least=1, most=1024, absent=1
    )


def check_run(run: Run, where: str) -> None:
    """Pictures go with `qwen`, clips with `wan`. Raises UserError."""
    data = run.data
    assert isinstance(data, Folder)
    fitting = "qwen" if data.frames == 1 else "wan"
    if run.model.kind != fitting:
        expected = f"{fitting!r} for data.frames {data.frames}"
        raise refusal(where, "model.kind", run.model.kind, expected)


def needs(run: Run) -> dict[str, str]:
    """The folder."""
    data = run.data
    assert isinstance(data, Folder)
    return {"data.source": data.source}


def render(data: Folder) -> dict[str, Tensor]:
    """Pictures or clips of both splits."""
    from pdmd.scenarios.owndata.pictures import read_pictures

    return read_pictures(data)


def prompts(data: Folder) -> list[Prompt]:
    """The prompt of each picture or clip, those held out last but for the null prompt."""
    from pdmd.scenarios.owndata.pictures import read_prompts

    return read_prompts(data)


def labels() -> dict[str, int]:
    """Nothing is known of a picture but its prompt."""
    return {}


def unjudged(*arguments: Any, **options: Any) -> Any:
    """Raises UserError: a judge would need labels."""
    raise UserError("data.kind: folder: expected a kind whose pictures have labels")


def validated(pictures: Mapping[str, Tensor], x: Tensor, root: Path) -> pd.DataFrame:
    """Raises UserError: known damage needs known content."""
    unjudged()
    raise AssertionError


OWN = dict(METRICS)
OWN["fidelity"] = (
    ["fid", "kid", "fvd", "kvd", *METRICS["fidelity"][0]],
    "distance to held-out data and to the teacher's, alignment",
)

KIND = Kind(
    name="folder",
    model=("qwen", "wan"),
    data=Folder,
    check_run=check_run,
    needs=needs,
    evaluate=frozenset({"samples"}),
    may_evaluate=frozenset({"beside", "networks"}),
    tables=["diversity", "motion", "steadiness", "fidelity", "differences", "runs"],
    figures={"samples": ("decoded", "prompts"), "training": ("training",)},
    metrics=lambda: OWN,
    prompted=Prompted(
        frames=0,
        judged=(),
        render=render,
        prompts=prompts,
        labels=labels,
        metrics=unjudged,
        networks=unjudged,
        validated=validated,
    ),
    frozen=Frozen(features=features, scores=scores),
)
