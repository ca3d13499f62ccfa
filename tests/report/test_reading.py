"""Files of finished runs: read whole, or one line that names the file, whatever befell them."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.errors import UserError
from pdmd.files.storage import write_json, write_text
from pdmd.report.reading import (
    read_boundaries,
    read_costs,
    read_frame,
    read_frames,
    read_jsonl,
    read_metrics,
    read_scores,
)
from pdmd.report.tables import write_tables
from pdmd.scenarios.kind import kinds
from pdmd.scenarios.mixture2d.kind import MODES

FRONTIER = "step,inliers,tv\n10,0.2,0.5\n20,0.6,0.125\n30,0.8,\n"
EXITS = "exit,inliers,tv\n1,0.2,0.5\n2,0.6,0.1\nall,0.4,0.3\n"
SCORES = {"inliers": 0.9, "tv": 0.1, "spread": None}
BOUNDARY = [{"t": 0.5, "energy": 0.1}, {"t": 0.0, "energy": -0.01}]
COST = {
    "updates": 40,
    "seconds": 2.5,
    "runs_trained_together": 2,
    "peak_memory_mb": 100.0,
    "forward_equivalents_by_role": {"fake": 10, "teacher": 20},
}
LOG = [{"step": i, "fake_loss": 0.5 / i} for i in range(1, 5)]


def cost(path: Path) -> Any:
    """The cost of a phase whose metrics.json is put where runs have it."""
    config = {"results": "", "scenario": "s", "method": "m", "kind": "fit", "seeds": [1]}
    config["results"] = str(path.parents[4])
    assert Paths(read_run(config)).phase(1, 1, "metrics.json") == path
    return read_costs([read_run(config)])


FILES: dict[str, tuple[str, str, Callable[[Path], Any]]] = {
    "scores": ("m.json", json.dumps(SCORES), lambda path: read_scores(path, ["inliers", "tv"])),
    "boundary": ("b.json", json.dumps(BOUNDARY), lambda path: read_boundaries(path, 2)),
    "cost": ("metrics.json", json.dumps(COST), cost),
    "frontier": ("f.csv", FRONTIER, lambda path: read_frame(path, "step", ["inliers", "tv"])),
    "exits": ("e.csv", EXITS, lambda path: read_frame(path, "exit", ["inliers", "tv"])),
    "log": (
        "stats.jsonl",
        "".join(json.dumps(record) + "\n" for record in LOG),
        lambda path: read_jsonl(path, ["step", "fake_loss"]),
    ),
}
WHOLE = {
    "gone": lambda path, content: path.unlink(),
    "folder": lambda path, content: (path.unlink(), path.mkdir()),
    "empty": lambda path, content: path.write_bytes(b""),
    "map": lambda path, content: path.write_bytes(b"{}\n"),
    "list": lambda path, content: path.write_bytes(b"[]\n"),
    "null": lambda path, content: path.write_bytes(b"null\n"),
    "number": lambda path, content: path.write_bytes(b"7\n"),
    "text": lambda path, content: path.write_bytes(b'"words"\n'),
    "latin": lambda path, content: path.write_bytes("é".encode("latin-1") + content),
    "nul": lambda path, content: path.write_bytes(b"\0" * len(content)),
    "NaN": lambda path, content: path.write_bytes(content.replace(b"0.1", b"NaN", 1)),
    "infinity": lambda path, content: path.write_bytes(content.replace(b"0.1", b"Infinity", 1)),
    "words": lambda path, content: path.write_bytes(content.replace(b"0.1", b"high", 1)),
    "quotes": lambda path, content: path.write_bytes(b'"' + content),
    "half": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "cut": lambda path, content: path.write_bytes(content.rstrip()[:-1]),
    "doubled": lambda path, content: path.write_bytes(content + content),
}


def written(folder: Path, name: str) -> Path:
    file, content, _ = FILES[name]
    path = folder / file
    if name == "cost":
        config = {"results": str(folder), "scenario": "s", "method": "m"}
        path = Paths(read_run(config)).phase(1, 1, file)
    write_text(path, content)
    return path


def refusal(call: Callable[[], Any]) -> str | None:
    """What a UserError says, None without one."""
    try:
        call()
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", FILES)
def test_a_whole_file_is_read(tmp_path: Path, name: str) -> None:
    found = FILES[name][2](written(tmp_path, name))
    if name == "scores":
        assert math.isnan(found.pop("spread"))
        assert found == {"inliers": 0.9, "tv": 0.1}
    elif name == "cost":
        assert found == {
            "m": [
                {
                    "updates": 40,
                    "seconds": 1.25,
                    "forward_equivalents": 30,
                    "peak_memory_mb": 100,
                }
            ]
        }
    elif name == "frontier":
        assert found["tv"].tolist()[:2] == [0.5, 0.125]
        assert math.isnan(found["tv"][2])
    elif name == "exits":
        assert found["exit"].tolist() == ["1", "2", "all"]
    else:
        assert found == (BOUNDARY if name == "boundary" else LOG)


@pytest.mark.parametrize("damage", WHOLE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, name: str, damage: str) -> None:
    path = written(tmp_path, name)
    content = path.read_bytes()
    WHOLE[damage](path, content)
    if path.is_file() and path.read_bytes() == content:
        return  # it holds nothing that could be damaged so
    if (name, damage) == ("log", "doubled"):
        assert len(FILES[name][2](path)) == 2 * len(LOG)  # a log may be that long
        return
    with pytest.raises(UserError) as caught:
        FILES[name][2](path)
    says = str(caught.value)
    assert str(path) in says
    assert ": expected " in says
    assert "\n" not in says
    assert len(says) < 300 + len(str(path))


@pytest.mark.parametrize("name", FILES)
def test_a_byte_that_is_lost_or_changed_is_never_a_traceback(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    content, dice, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        at = dice.randrange(len(content))
        longer = bytes([dice.randrange(256)]) if dice.random() < 0.5 else b""
        path.write_bytes(content[:at] + longer + content[at + 1 :])
        says = refusal(lambda: FILES[name][2](path))
        refused += says is not None
        assert says is None or (str(path) in says and "\n" not in says), says
    assert 100 < refused < 300  # a digit for another is a number, too


@pytest.mark.parametrize("name", ["frontier", "exits", "log"])
def test_a_file_cut_short_within_a_line_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    content = path.read_bytes()
    for length in range(len(content)):
        at_an_end = content[:length].endswith(b"\n") and content[:length].count(b"\n") > 1
        before_an_end = content[length : length + 1] == b"\n"
        if at_an_end or (name == "log" and (before_an_end or content[:length].endswith(b"\n"))):
            continue  # whole lines are left: the next test's
        path.write_bytes(content[:length])
        with pytest.raises(UserError):
            FILES[name][2](path)


def test_a_seed_that_lacks_rows_of_the_others_is_named(tmp_path: Path) -> None:
    paths = [tmp_path / f"seed{i}" / "frontier.csv" for i in (1, 2)]
    for path in paths:
        write_text(path, FRONTIER)
    assert len(read_frames(paths, "step", ["tv"])) == 2  # the control
    write_text(paths[1], "".join(FRONTIER.splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match=r"seed2/frontier\.csv: step 10, 20: expected 10, 20, 30"):
        read_frames(paths, "step", ["tv"])


def test_a_metric_that_is_not_there_is_named_but_one_beside_the_teacher_may_be(
    tmp_path: Path,
) -> None:
    config = {"results": str(tmp_path), "scenario": "s", "method": "teacher", "seeds": [1]}
    write_json(Paths(read_run(config)).seed(1, "metrics.json"), {"fid": 1.0})
    assert read_metrics([read_run(config)], ["fid", "fid_teacher"]) == {"teacher": [{"fid": 1.0}]}
    with pytest.raises(UserError, match=r"metrics\.json: kid: missing: expected every metric"):
        read_metrics([read_run(config)], ["fid", "kid"])


@pytest.mark.parametrize("value", [math.nan, math.inf, True, "0.5", [0.5], {}])
def test_a_value_that_is_broken_is_not_taken_for_one_that_is_undefined(
    tmp_path: Path, value: Any
) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"tv": value})
    with pytest.raises(UserError, match=r"metrics\.json: tv: .* expected a finite number"):
        read_scores(path)
    write_json(path, {"tv": None})
    assert math.isnan(read_scores(path)["tv"])


# ---- the tables of a scenario

MIXTURE = kinds()["mixture2d"]


def scenario(folder: Path, methods: list[str], seeds: list[int]) -> list[dict[str, Any]]:
    """Made-up results of a grid."""
    configs = []
    names = [MIXTURE.fidelity, *MIXTURE.equal]
    for method in methods:
        kind = "teacher" if method.startswith("teacher") else "distill"
        boundaries = [2, 4] if method == "phased2" else [4]
        student = {"steps": 4, "shift": 1.0, "boundaries": boundaries, "backward": "exit"}
        config = {
            "results": str(folder),
            "scenario": "grid",
            "method": method,
            "title": "50% of {2D}",
            "kind": kind,
            "seeds": seeds,
            "student": student,
            "teacher": {"steps": 4 if method == "teacher4" else 40, "shift": 1.0},
            "data": {"kind": "mixture2d", "per_side": 5},
            "tables": {"levels": [0.5]},
        }
        configs.append(config)
        for seed in seeds:
            paths = Paths(read_run(config))
            scores = dict.fromkeys(MODES, 0.5) | {"modes_covered": 25 - (seed == 1)}
            write_json(
                paths.seed(seed, "metrics.json"), scores | {"spread": None if seed == 2 else 1}
            )
            if kind == "teacher":
                continue
            rows = [",".join(["", *names])[1:]]
            values = [",".join(str(i / 4 + 0.1) for _ in names) for i in range(3)]
            write_text(
                paths.seed(seed, "frontier.csv"), _csv("step", ["1", "2", "3"], rows, values)
            )
            write_text(paths.seed(seed, "exits.csv"), _csv("exit", ["1", "2", "all"], rows, values))
            write_json(
                paths.seed(seed, "boundary.json"),
                [{"t": 0.5, "energy": 0.1 * seed} for _ in boundaries],
            )
            for number in range(len(boundaries)):
                write_json(paths.phase(seed, number + 1, "metrics.json"), COST)
    return configs


def _csv(key: str, keys: list[str], header: list[str], values: list[str]) -> str:
    lines = [f"{key},{header[0]}", *(f"{k},{v}" for k, v in zip(keys, values, strict=True))]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("methods", [["teacher", "dmd2", "phased2"], ["teacher"]])
def test_every_table_is_written_and_cut_to_its_range(tmp_path: Path, methods: list[str]) -> None:
    write_tables(scenario(tmp_path, methods, [1, 2, 3]))
    folder = tmp_path / "grid" / "tables"
    assert {path.stem for path in folder.glob("*.csv")} == set(MIXTURE.tables)
    modes = pd.read_csv(folder / "modes.csv")
    assert modes["modes_covered_high"].max() == 25
    assert modes["spread_n"].tolist() == [2] * len(methods)
    assert "(n=2)" in (folder / "modes.md").read_text()
    assert r"\caption{50\% of \{2D\}: modes" in (folder / "modes.tex").read_text()


@pytest.mark.parametrize(
    "name", ["metrics.json", "frontier.csv", "exits.csv", "boundary.json", "phase1/metrics.json"]
)
def test_tables_name_the_file_that_is_damaged(tmp_path: Path, name: str) -> None:
    configs = scenario(tmp_path, ["teacher", "phased2"], [1, 2])
    path = Paths(read_run(configs[1])).seed(2, name)
    content = path.read_bytes()
    for damaged in (None, b"", b"{}", content[: len(content) // 2]):
        path.unlink(missing_ok=True)
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(UserError, match=name):
            write_tables(configs)
    path.write_bytes(content)
    write_tables(configs)  # the control
