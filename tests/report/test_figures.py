"""Figures: every file appears, equal data give equal bytes, no two methods look the same."""

import csv
import itertools
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pdmd.config.experiment import Config, read_yaml
from pdmd.config.paths import Paths
from pdmd.config.run import read_run
from pdmd.config.sections import Model
from pdmd.errors import UserError
from pdmd.files.storage import read_json, save_tensors, write_json, write_text
from pdmd.metrics.intervals import mean_interval
from pdmd.models.base import Space
from pdmd.models.build import build
from pdmd.report import looks
from pdmd.report.figures import draw_figures, results, style
from pdmd.report.looks import LOOKS, look, title, wrapped
from pdmd.report.registry import figures_from
from pdmd.report.worded import caption_of
from pdmd.scenarios.digits.pictures import CLASSES, fit_codec
from pdmd.scenarios.kind import kinds

ROOT = Path(__file__).resolve().parents[2]
RASTER = b"/Subtype /Image"
DATA: dict[str, Config] = {
    "toy1d": {"kind": "toy1d", "positions": [-1, 0, 1, 2]},
    "mixture2d": {"kind": "mixture2d", "per_side": 5, "std": 0.08, "seed": 0, "least_weight": 0.3},
    "digits": {"kind": "digits"},
}
METHODS = {
    "toy1d": ["full", "unbiased", "biased"],
    "mixture2d": ["teacher", "base", "dmd1", "dmd2", "phased2", "never-seen"],
    "digits": ["teacher", "dmd2", "phased2"],
}
METRICS = {
    "toy1d": ["velocity_rmse", "trajectory_rmse"],
    "mixture2d": ["modes_covered", "tv", "inliers", "spread", "energy", "effective_modes"],
    "digits": ["coverage", "density", "cosine", "accuracy", "kid"],
}
LOGGED = ["fake_loss", "fake_lag", "generator_gradient_norm", "sample_std"]
MODEL = {"kind": "mlp", "width": 8, "depth": 1, "waves": 0}

Scenario = Callable[..., list[Config]]
Finished = tuple[list[Config], dict[str, bytes]]


@pytest.fixture
def scenario(tmp_path: Path) -> Scenario:
    """(kind, seeds[, methods]) -> the configs of a made-up scenario; results lie in tmp_path."""
    return partial(fake_scenario, tmp_path)


@pytest.fixture(scope="module", params=METHODS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The configs of a scenario of each kind, two seeds, and the files drawn of it."""
    configs = fake_scenario(tmp_path_factory.mktemp(request.param), request.param, [1, 2])
    draw_figures(configs)
    return configs, drawn(configs[0])


def fake_scenario(
    folder: Path, kind: str, seeds: list[int], methods: list[str] | None = None
) -> list[Config]:
    """Results of every method and seed."""
    torch.manual_seed(0)
    configs = [fake_config(folder, kind, method, seeds) for method in methods or METHODS[kind]]
    for config in configs:
        for seed in seeds:
            fake_run(config, seed)
    if kind == "digits":
        fake_pictures(Paths(read_run(configs[0])))
    return configs


def fake_config(results_folder: Path, kind: str, method: str, seeds: list[int]) -> Config:
    """A method's resolved config."""
    fitted = "teacher" if method in ("teacher", "base") else "distill"
    steps = 1 if method == "dmd1" else 4
    return {
        "results": str(results_folder),
        "scenario": kind,
        "title": kind,
        "method": method,
        "threads": 1,
        "kind": "fit" if kind == "toy1d" else fitted,
        "data": DATA[kind],
        "student": {"steps": steps, "boundaries": [2, 4] if "phased" in method else [steps]},
        "teacher": {"steps": 40, "shift": 1.0},
        "tables": {"levels": [0.5]},
        "seeds": seeds,
    }


def fake_run(config: Config, seed: int) -> None:
    """Everything that figures read of one run."""
    paths, kind = Paths(read_run(config)), config["data"]["kind"]
    shift = seed / 100 + len(config["method"]) / 50
    scores = {name: 0.3 + i / 10 + shift for i, name in enumerate(METRICS[kind])}
    write_json(paths.seed(seed, "metrics.json"), scores)
    if kind == "toy1d":
        fake_fit(config, seed)
        return
    dimension = 2 if kind == "mixture2d" else 4
    tensors = {"x": torch.randn(60, dimension)}
    if kind == "digits":
        tensors["condition"] = torch.arange(60) * CLASSES // 60
    save_tensors(paths.seed(seed, "samples.safetensors"), tensors)
    if config["kind"] == "distill":
        path = paths.seed(seed, "frontier.csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as handle:
            writer = csv.DictWriter(handle, ["step", *scores])
            writer.writeheader()
            writer.writerows({"step": i, **{k: v * i for k, v in scores.items()}} for i in (1, 4))
        for number in range(1, len(config["student"]["boundaries"]) + 1):
            records = [{"step": i, **dict.fromkeys(LOGGED, i + shift)} for i in (2, 4, 5)]
            lines = "".join(json.dumps(record) + "\n" for record in records)
            write_text(paths.phase(seed, number, "stats.jsonl"), lines)


def fake_fit(config: Config, seed: int) -> None:
    """A network and trajectories of the 1D toy."""
    paths, start = Paths(read_run(config)), 0.0 if config["method"] == "full" else 0.5
    run = {"model": MODEL, "flow": "rectified", "fit": {"start": start}}
    write_json(paths.seed(seed, "config.json"), run)
    state = build(Model(**MODEL), Space((1,)), 1, seed).state_dict()
    save_tensors(paths.phase(seed, 1, "expert.safetensors"), state)
    reference = torch.randn(1, 20, 1) + torch.linspace(0, 1, 9)[:, None, None]
    tensors = {"times": torch.linspace(1, start, 9), "reference": reference}
    tensors["trajectory"] = reference + 0.01 * torch.arange(9)[:, None, None]
    save_tensors(paths.seed(seed, "samples.safetensors"), tensors)


def fake_pictures(paths: Paths) -> None:
    """Held-out pictures and a codec of four components."""
    pictures = torch.rand(50, 64) * 2 - 1
    save_tensors(paths.data("codec.safetensors"), vars(fit_codec(pictures, 4, 1.0)))
    held = {"pictures": pictures, "labels": torch.arange(50) % CLASSES}
    save_tensors(paths.data("heldout.safetensors"), held)


def drawn(config: Config) -> dict[str, bytes]:
    """The files of the figures folder."""
    folder = Paths(read_run(config)).scenario / "figures"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]], ids=["one seed", "three seeds"])
@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
def test_every_figure_of_the_catalogue_appears(
    scenario: Scenario, kind: str, seeds: list[int]
) -> None:
    configs = scenario(kind, seeds)
    draw_figures(configs)
    wanted = {f"{name}.{end}" for name in kinds()[kind].figures for end in ("png", "pdf")}
    assert set(drawn(configs[0])) == wanted | {"provenance.json"}


def test_samples_are_pictures_and_everything_else_is_lines(finished: Finished) -> None:
    names = {name for name, content in finished[1].items() if RASTER in content}
    assert names == set(finished[1]) & {"samples.pdf"}


def test_fonts_are_embedded_as_truetype_and_no_file_holds_a_date(finished: Finished) -> None:
    for name, content in finished[1].items():
        if name.endswith(".pdf"):
            assert b"/FontFile2" in content
            assert b"/Subtype /Type3" not in content
            assert b"Date" not in content
        if name.endswith(".png"):
            assert b"matplotlib" not in content


def test_another_process_draws_the_same_bytes(scenario: Scenario, tmp_path: Path) -> None:
    configs = scenario("mixture2d", [1, 2])
    draw_figures(configs)
    before = drawn(configs[0])
    shutil.rmtree(Paths(read_run(configs[0])).scenario / "figures")
    files = []
    for config in configs:
        files.append(str(tmp_path / f"{config['method']}.json"))
        write_json(Path(files[-1]), config)
    command = [sys.executable, "-m", "pdmd", "figures", "--configs", *files]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "7"}, cwd=ROOT)
    assert drawn(configs[0]) == before

    metrics = Paths(read_run(configs[2])).seed(1, "metrics.json")
    write_json(metrics, {name: value + 0.1 for name, value in read_json(metrics).items()})
    draw_figures(configs)  # the control: other numbers, other bytes
    after = drawn(configs[0])
    assert {name for name in after if after[name] != before[name]} == {
        f"{name}.{end}" for name in ("frontier", "modes", "samples") for end in ("png", "pdf")
    } | {"provenance.json"}


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
def test_a_metric_that_a_seed_does_not_have_leaves_a_gap(scenario: Scenario, kind: str) -> None:
    configs = scenario(kind, [1, 2, 3])
    for config, seeds in ((configs[0], [1, 2, 3]), (configs[1], [2])):
        for seed in seeds:
            path = Paths(read_run(config)).seed(seed, "metrics.json")
            needed = {"inliers", "modes_covered"}  # which the grid's panels write out
            scores = read_json(path).items()
            write_json(path, {name: v if name in needed else None for name, v in scores})
    draw_figures(configs)


def test_a_value_that_is_broken_stops_the_drawing_and_is_named(scenario: Scenario) -> None:
    configs = scenario("mixture2d", [1, 2], ["teacher", "phased2"])
    path = Paths(read_run(configs[1])).seed(2, "metrics.json")
    scores = read_json(path)
    for broken in ({**scores, "tv": float("nan")}, {"inliers": 0.5}):
        write_json(path, broken)
        with pytest.raises(UserError, match=r"phased2/seed2/metrics\.json: "):
            draw_figures(configs)
    write_json(path, scores)
    draw_figures(configs)  # the control


def test_an_interval_is_drawn_only_of_seeds_that_have_the_metric() -> None:
    from pdmd.report.figures.dots import draw_column

    def lines(values: list[float]) -> int:
        ax = style.new_figure(2, 2).subplots()
        draw_column(ax, {"dmd2": values})
        return len(ax.lines)

    assert lines([0.1, 0.2, 0.3]) == lines([0.1, 0.2, float("nan")]) + 1


def test_a_failed_drawing_leaves_no_file(tmp_path: Path) -> None:
    class Broken:
        def savefig(self, path: Path, **_: Any) -> None:
            path.write_bytes(b"half a pict")
            raise OSError("disk full")

    with pytest.raises(UserError, match=r"samples\.png: disk full"):
        style.save(Broken(), tmp_path / "samples")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def inputs(configs: list[dict[str, Any]]) -> list[Path]:
    """What the rule of a scenario's figures declares."""
    runs = [read_run(config) for config in configs]
    return list(dict.fromkeys(itertools.chain(*figures_from(runs).values())))


def test_provenance_names_what_was_read(finished: Finished) -> None:
    configs, _ = finished
    provenance = read_json(Paths(read_run(configs[0])).scenario / "figures" / "provenance.json")
    assert set(provenance["inputs_sha256"]) == set(map(str, inputs(configs)))


def test_each_missing_input_stops_the_drawing(scenario: Scenario) -> None:
    configs = scenario("mixture2d", [1, 2], ["teacher", "phased2"])
    for path in inputs(configs):
        content = path.read_bytes()
        path.unlink()
        with pytest.raises((OSError, UserError)):
            draw_figures(configs)
        path.write_bytes(content)


def test_updates_are_counted_through_the_phases(scenario: Scenario) -> None:
    (config,) = scenario("mixture2d", [1, 2], ["phased2"])
    first, second = results.phase_logs(read_run(config))
    assert sorted(set(first["update"])) == [2, 4, 5]
    assert sorted(set(second["update"])) == [7, 9, 10]
    assert len(first) == 2 * 3  # a row a seed and record


def test_digits_stand_in_rows_by_class() -> None:
    from pdmd.scenarios.digits.figures import EACH, GAP, mosaic

    labels = torch.arange(CLASSES).repeat_interleave(EACH + 2)
    pictures = (labels / CLASSES)[:, None].expand(-1, 64)
    image, step = mosaic(pictures, labels), 8 + GAP
    for label in range(CLASSES):
        assert (image[label * step : label * step + 8, :8] == image[label * step, 0]).all()
        assert image[label * step, 0] == pytest.approx(label / CLASSES)
    shuffled = mosaic(pictures, labels.flip(0))
    assert shuffled[0, 0] == pytest.approx((CLASSES - 1) / CLASSES)  # the control


@pytest.mark.parametrize(("blocks", "shape"), [(1, (1, 1)), (6, (1, 6)), (7, (2, 4)), (15, (3, 5))])
def test_many_methods_stand_in_even_bands(blocks: int, shape: tuple[int, int]) -> None:
    from pdmd.scenarios.emoji.figures import in_bands

    assert in_bands(blocks, 6) == shape


def collisions(looks: dict[str, Any]) -> int:
    """How many methods share colour and marker with an earlier one."""
    return len(looks) - len({(shown.colour, shown.marker) for shown in looks.values()})


def test_no_two_methods_look_the_same() -> None:
    assert collisions(LOOKS) == 0
    assert len({shown.label for shown in LOOKS.values()}) == len(LOOKS)
    assert collisions(LOOKS | {"copy": LOOKS["dmd2"]}) == 1  # the control


def test_every_method_that_can_be_run_has_a_look_of_its_own() -> None:
    assert set(read_yaml(ROOT / "config" / "methods.yaml")) <= set(LOOKS)


def test_an_unknown_method_has_a_stable_look_that_no_known_one_has() -> None:
    found = look("never-seen")
    code = "from pdmd.report.looks import look; print(look('never-seen'))"
    command = [sys.executable, "-c", code]
    env = {"PYTHONHASHSEED": "3"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.stdout.strip() == repr(found)
    assert found.label == "never-seen"
    for name in ("never-seen", "phased8", "dmd-new", "x"):
        assert collisions(LOOKS | {name: look(name)}) == 0


def test_methods_of_one_overlay_do_not_share_a_spare_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of anagrams the names alone give one look."""
    names = ["dmd-abc", "dmd-bca", "dmd-cab"]
    assert collisions({name: look(name) for name in names}) == 2  # control
    for kept in ("_labels", "_places"):
        monkeypatch.setattr(looks, kept, {})
    looks.name_methods([SimpleNamespace(method=name, label=None) for name in names])  # type: ignore[misc]
    assert collisions(LOOKS | {name: look(name) for name in names}) == 0


@pytest.mark.parametrize("name", LOOKS)
def test_a_marker_is_seen_on_white(name: str) -> None:
    figure = style.Figure(figsize=(0.5, 0.5), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    canvas = FigureCanvasAgg(figure)

    def darkest() -> int:
        canvas.draw()
        return int(np.asarray(canvas.buffer_rgba())[..., :3].sum(-1).min())

    assert darkest() == 3 * 255  # control: nothing is drawn yet
    axes.plot([0], [0], linestyle="none", **style.marker_of(name))
    assert darkest() < 600


def test_every_table_and_figure_has_a_caption() -> None:
    names = {name for kind in kinds().values() for name in (*kind.tables, *kind.figures)}
    captions = {path.stem: path.read_text() for path in (ROOT / "workflow/report").glob("*.rst")}
    assert names <= set(captions)
    assert all(captions[name].rstrip().endswith(".") for name in names)


def test_a_caption_is_its_kinds_own_where_there_is_one() -> None:
    assert "standard deviations" in caption_of("samples", "mixture2d")
    assert "of each class" in caption_of("samples", "digits")
    assert "of each prompt" in caption_of("samples", "emoji")
    assert caption_of("samples", "emoji") == caption_of("samples")
    assert caption_of("nothing", "emoji") == ""
    folder = ROOT / "workflow/report"
    for path in folder.glob("*/*.rst"):
        assert path.parent.name in kinds(), path
        assert (folder / path.name).exists(), path
        assert path.read_text().rstrip().endswith("."), path


def test_every_metric_in_a_figure_has_a_label() -> None:
    for names in METRICS.values():
        assert set(names) <= set(style.LABELS)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    mean, low, high = mean_interval([0.5])
    assert mean == 0.5
    assert low != low
    assert high != high


def test_where_there_is_no_room_for_all_the_papers_methods_are_shown_in_the_tables_order() -> None:
    from pdmd.report.figures.selected import selected

    names = ["teacher", "teacher4-even", "teacher4-shift3", "dmd2", "phased4", "phased2"]
    names += ["teacher-again", "extra"]
    runs = [SimpleNamespace(method=name) for name in names]

    def chosen(most: int) -> list[str]:
        return [run.method for run in selected(runs, most)]  # type: ignore[arg-type]

    assert chosen(3) == ["teacher", "dmd2", "phased2"]
    assert chosen(5) == ["teacher", "teacher4-shift3", "dmd2", "phased4", "phased2"]
    assert chosen(7) == [name for name in names if name != "teacher-again"]
    assert chosen(9) == names


def test_a_mode_without_samples_is_filled_and_others_are_not(scenario: Scenario) -> None:
    from pdmd.data.sources import build_mixture
    from pdmd.scenarios.mixture2d.figures import LOST, draw_modes

    (config,) = scenario("mixture2d", [1], ["dmd2"])
    run = read_run(config)
    means = build_mixture(run.data).means.float()

    def filled(x: torch.Tensor) -> int:
        ax = style.new_figure(2, 2).subplots()
        draw_modes(ax, run, x)
        return sum(bool(colour[3]) for colour in ax.collections[0].get_facecolors())  # type: ignore[attr-defined]

    assert LOST.startswith("#")
    assert filled(means.repeat(4, 1)) == 0
    assert filled(means[3:].repeat(4, 1)) == 3


def test_a_title_keeps_what_belongs_together_in_a_line():
    for letters in range(4, 24):
        lines = title("tdm4", letters).split("\n")
        assert " ".join(lines) == look("tdm4").label
        assert any("4 × 1" in line for line in lines)
    assert wrapped("KVD to the teacher ↓", 18) == "KVD to the\nteacher ↓"
    assert "4 ×\n1" in textwrap.fill(look("tdm4").label, 16)  # control: what wraps at any space
