"""Values that must fit one another: what would fail after training, or be ignored, is refused."""

import pytest
from configs import ROOT, SCENARIOS, accepted, own, read_once, refused

from pdmd.config.catalogue import LEAST, NETWORKS
from pdmd.config.checks import check_together
from pdmd.config.run import read_run
from pdmd.config.score_checks import COMPARED_AT
from pdmd.errors import UserError
from pdmd.scenarios.digits.kind import DIGITS, RAREST
from pdmd.scenarios.emoji import pictures as emoji
from pdmd.scenarios.emoji.kind import COPIES
from pdmd.scenarios.kind import kinds
from pdmd.scenarios.moving import clips as moving
from pdmd.scenarios.moving.kind import OBJECTS

VAE = {"kind": "AutoencoderKLQwenImage", "weights": "x/y"}


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    read_once(monkeypatch)


def evaluate(scenario, **diff):
    return own(scenario, evaluate=diff)


def networks(scenario, **names):
    return own(scenario, evaluate={"networks": names})


# What is wrong -> (diff, what the line says, a diff that just fits: the control, or None).
WRONG = {
    "score matching alone where samples are scored": (
        own("mixture2d", methods=["full"]),
        "mixture2d/full: kind: 'fit': expected teacher or distill for data.kind mixture2d",
        None,
    ),
    "students of atoms, which have none": (
        own("toy1d", methods=["dmd2"]),
        "toy1d/dmd2: kind: 'distill': expected fit for data.kind toy1d",
        None,
    ),
    "kept weights, and others to start from": (
        own("moving", fit={"start_from": "x.safetensors"}),
        "moving: fit.start_from: 'x.safetensors': expected null beside fit.kept",
        own("moving", fit={"start_from": "x.safetensors", "kept": None}),
    ),
    "a seed of a method's own fit": (
        own("toy1d", fit={"seed": 1}),
        "fit.seed: 1: expected 0 for a method of kind fit, which has the scenario's seeds",
        own("mixture2d", fit={"seed": 1}),
    ),
    "kept weights of a method's own fit": (
        own("toy1d", fit={"kept": "x.safetensors"}),
        "fit.kept: 'x.safetensors': expected null for a method of kind fit",
        own("mixture2d", fit={"kept": "x.safetensors"}),
    ),
    "a base network on a part of the interval": (
        own("mixture2d", fit={"start": 0.5}),
        "mixture2d: fit.start: 0.5: expected 0 for the base network",
        own("mixture2d", fit={"start": 0.0}),
    ),
    "a base network by a target of intervals": (
        own("mixture2d", fit={"target": "biased"}),
        "mixture2d: fit.target: 'biased': expected flow or teacher",
        own("mixture2d", fit={"target": "flow"}),
    ),
    "waves of another network": (
        own("moving", model={"waves": 4}),
        "moving/teacher: model.waves: 4: expected no such key for model.kind wan",
        own("mixture2d", model={"waves": 0}),
    ),
    "heads of another network": (
        own("digits", model={"heads": 4}),
        "model.heads: 4: expected no such key for model.kind conditional-mlp",
        own("emoji", model={"heads": 2}, fit={"kept": None}),
    ),
    "two experts of another network": (
        own("emoji", model={"boundary": 0.9}),
        "model.boundary: 0.9: expected no such key for model.kind qwen",
        own("moving", model={"boundary": 0.9}),
    ),
    "Wan's MLP in another network": (
        own("emoji", model={"feedforward": 64}),
        "model.feedforward: 64: expected no such key for model.kind qwen",
        own("moving", model={"feedforward": 64}),
    ),
    "a boundary that no noise level passes": (
        own("movingmoe", model={"boundary": 0.999}),
        "model.boundary: 0.999: expected less than 1 - student.margin = 0.999",
        own("movingmoe", model={"boundary": 0.95}),
    ),
    "a boundary that leaves no room": (
        own("movingmoe", model={"boundary": 0.979}, student={"shift": 40.0, "margin": 0.02}),
        "student.margin: 0.02: expected room for re-noising",
        None,
    ),
    "steps so close to noise that nothing is between": (
        own("mixture2d", student={"shift": 12.0}, methods=["phased4"]),
        "between phase 1's end, t = 0.9730, and 1 (student.shift = 12.0)",
        own("mixture2d", student={"shift": 6.0}, methods=["phased4"]),
    ),
    "disjoint intervals narrower than the margin": (
        own("mixture2d", student={"shift": 0.02, "interval": "disjoint"}, methods=["phased4"]),
        "expected room for re-noising between phase 3's end, t = 0.0066, and its start",
        own("mixture2d", student={"shift": 0.5, "interval": "disjoint"}, methods=["phased4"]),
    ),
    "microbatches of a projected gradient that all rows normalise": (
        own("mixture2d", distill={"normaliser": "batch", "microbatch": 8, "gradient": "projected"}),
        "distill.microbatch: 8: expected none with distill.normaliser batch",
        own("mixture2d", distill={"normaliser": "batch", "microbatch": 8, "gradient": "literal"}),
    ),
    "one re-noising level above a disjoint phase": (
        own(
            "mixture2d",
            student={"renoise": {"at": 0.6}, "interval": "disjoint"},
            methods=["phased2"],
        ),
        "student.renoise.at: 0.6: expected a noise level at least student.margin = 0.02 between"
        " phase 2's end, t = 0.0000, and its start",
        own("mixture2d", student={"renoise": {"at": 0.6}}, methods=["phased2"]),
    ),
    "one re-noising level below a phase's samples": (
        own("mixture2d", student={"renoise": {"at": 0.5}}, methods=["phased2"]),
        "student.renoise.at: 0.5: expected a noise level at least student.margin = 0.02 between"
        " phase 1's end, t = 0.5000, and 1",
        own("mixture2d", student={"renoise": {"at": 0.6}}, methods=["phased2"]),
    ),
    "a law of re-noising that begins above its end": (
        own("mixture2d", student={"renoise": {"low": 0.9, "high": 0.8}}, methods=["dmd2"]),
        "expected room for re-noising between phase 1's end, t = 0.0000, and 1",
        own("mixture2d", student={"renoise": {"low": 0.7, "high": 0.8}}, methods=["dmd2"]),
    ),
    "exits where every step is taken": (
        own("mixture2d", student={"exits": "last"}, methods=["dmd"]),
        "student.exits: 'last': expected 'stratified' for student.backward all",
        own("mixture2d", student={"exits": "last"}, methods=["dmd2"]),
    ),
    "an adapter wider than the network": (
        own("emoji", student={"lora": {"rank": 65, "alpha": 8}}),
        "student.lora.rank: 65: expected at most model.width = 64",
        own("emoji", student={"lora": {"rank": 64, "alpha": 8}}),
    ),
    "an exact teacher of another schedule": (
        own("mixture2d", flow="cosine"),
        "flow: 'cosine': expected 'rectified' where the exact velocity is used",
        own("digits", flow="cosine"),
    ),
    "exact curves of another schedule": (
        own("toy1d", flow="cosine"),
        "flow: 'cosine': expected 'rectified' where the exact velocity is used",
        own(
            "mixture2d",
            flow="cosine",
            teacher={"kind": "fitted"},
            fit={"target": "flow"},
            methods=["teacher"],
        ),
    ),
    "guidance by a null condition that nothing trains": (
        own("digits", fit={"null_share": 0.0}),
        "teacher.guidance: 1.5: expected 1 where fit.null_share is 0",
        own("digits", fit={"null_share": 0.0}, teacher={"guidance": 1.0}),
    ),
    "a null condition that the network has not": (
        own("mixture2d", fit={"null_share": 0.1}),
        "fit.null_share: 0.1: expected 0 for model.kind mlp",
        own("mixture2d", fit={"null_share": 0.0}),
    ),
    "more components than single copies have": (
        own("digits", data={"components": 64, "copies": 1}),
        "data.components: 64: expected at most 56 for data.copies 1",
        own("digits", data={"components": 64, "copies": 2}),
    ),
    "an atom twice": (
        own("toy1d", data={"positions": [0, 1, 1.0]}),
        "data.positions: [0, 1, 1.0]: expected no entry twice",
        own("toy1d", data={"positions": [0, 1]}),
    ),
    "an odd number of latents": (
        own("emoji", data={"px": 28}),
        "data.px: 28: expected a multiple of 8, two latents of 4 px",
        own("emoji", data={"px": 24}),
    ),
    "patches of several pictures": (
        own("emoji", data={"codec": {"patch": [2, 4, 4]}}),
        "data.codec.patch: [2, 4, 4]: expected a divisor of 1 frames first",
        own("moving", data={"codec": {"patch": [2, 5, 5]}}),
    ),
    "more channels than a patch has numbers": (
        own("emoji", data={"codec": {"channels": 49}}),
        "data.codec.channels: 49: expected at most 48, the numbers of a patch",
        own("emoji", data={"codec": {"channels": 48}}),
    ),
    "too many neighbours for held-out pictures": (
        evaluate("digits", neighbours=43),
        "evaluate.neighbours: 43: expected less than 43, the real samples",
        evaluate("digits", neighbours=42),
    ),
    "too many neighbours for held-out clips": (
        own("moving", data={"heldout": 40}, evaluate={"video_samples": 8}),
        "evaluate.neighbours: 5: expected less than 5, the real samples",
        own("moving", data={"heldout": 48}, evaluate={"video_samples": 8}),
    ),
    "too many neighbours for the samples": (
        evaluate("digits", samples=1000, neighbours=40, frontier_samples=400),
        "evaluate.frontier_samples: 400: expected at least 410: 41 of each of 10 prompts",
        evaluate("digits", samples=1000, neighbours=40, frontier_samples=410),
    ),
    "too few samples for diversity": (
        evaluate("emoji", samples=159, neighbours=2),
        "evaluate.samples: 159: expected at least 160: 8 of each of 20 prompts",
        evaluate("emoji", samples=160, neighbours=2),
    ),
    "too few samples of clips": (
        evaluate("moving", samples=959),
        "evaluate.samples: 959: expected at least 960: 8 of each of 120 prompts",
        evaluate("moving", samples=960),
    ),
    "a frontier without some prompts": (
        evaluate("moving", frontier_samples=119),
        "evaluate.frontier_samples: 119: expected at least 120: 1 of each of 120",
        evaluate("moving", frontier_samples=120),
    ),
    "more clips through I3D than samples": (
        evaluate("moving", video_samples=961),
        "evaluate.video_samples: 961: expected at most 960",
        evaluate("moving", video_samples=960),
    ),
    "more clips through I3D than real ones": (
        own("moving", data={"heldout": 160}, evaluate={"video_samples": 321}),
        "evaluate.video_samples: 321: expected at most 320",
        own("moving", data={"heldout": 160}, evaluate={"video_samples": 320}),
    ),
    "a score of other data": (
        evaluate("mixture2d", neighbours=3),
        "evaluate.neighbours: 3: expected no such key for data.kind mixture2d",
        evaluate("mixture2d", samples=3),
    ),
    "steps that pass over the time of comparison": (
        evaluate("toy1d", steps=101),
        "toy1d/full: evaluate.steps: 101: expected a count of which some step from 1 to 0 meets",
        evaluate("toy1d", steps=102),
    ),
    "inliers beyond all": (
        own("mixture2d", tables={"levels": [0.5, 1.0]}),
        "tables.levels: 1.0: expected between 0 and 1, as inliers is",
        own("mixture2d", tables={"levels": [0.5, 0.999]}),
    ),
    "no density at all": (
        own("digits", tables={"levels": [0]}),
        "tables.levels: 0: expected more than 0, as density is",
        own("digits", tables={"levels": [1.7]}),
    ),
    "levels of what has no frontier": (
        own("toy1d", tables={"levels": [0.5]}),
        "tables.levels: [0.5]: expected [] for data.kind toy1d",
        own("toy1d", tables={"levels": []}),
    ),
    "a level twice": (
        own("digits", tables={"levels": [1.5, 1.5]}),
        "tables.levels: [1.5, 1.5]: expected no entry twice",
        own("digits", tables={"levels": [1.5, 1.6]}),
    ),
    "features of a network that nobody knows": (
        networks("emoji", features="lite1"),
        "networks.features: 'lite1': expected a folder that exists, or one of lite0, an owner/name",
        networks("emoji", features="facebook/dinov3-vits16-pretrain-lvd1689m"),
    ),
    "a folder that is none": (
        networks("emoji", features="config/config.yaml/x"),
        "networks.features: 'config/config.yaml/x': expected a folder that exists",
        networks("emoji", features=str(ROOT)),
    ),
    "flow of a network that nobody knows": (
        networks("moving", flow="raft"),
        "networks.flow: 'raft': expected a file that exists, or one of opencv, C_T_V1",
        networks("moving", flow="C_T_V2"),
    ),
    "flow of pictures": (
        networks("emoji", flow="opencv"),
        "networks.flow: 'opencv': expected no such key for pictures",
        networks("moving", flow="opencv"),
    ),
    "a CLIP that nobody knows": (
        networks("emoji", clip="ViT-B/33"),
        "networks.clip: 'ViT-B/33': expected a file that exists, or one of RN50",
        networks("emoji", clip="ViT-B/32"),
    ),
    "metrics tried on a scenario that does not run": (
        {"scenarios": ["toy1d"], "validate": ["emoji"]},
        "config: validate: 'emoji': expected scenarios that run: some of toy1d",
        {"scenarios": ["emoji"], "validate": ["emoji"]},
    ),
    "more seeds than generators know": (
        own("toy1d", seeds=[2**32]),
        "overrides.toy1d.seeds.0: 4294967296: expected at most 4294967295",
        own("toy1d", seeds=[2**32 - 1]),
    ),
    "a scenario of a thousand million million steps": (
        own("mixture2d", student={"steps": 10**18}),
        "student.steps: 1000000000000000000: expected at most 999",
        None,
    ),
    "a name with a line break": (
        {"scenarios": ["toy1d\n"]},
        "scenarios.0: 'toy1d\\n': expected a text of one line",
        {"scenarios": ["toy1d"]},
    ),
    "a title with a line break": (own("toy1d", title="a\nb"), "title: 'a\\nb': expected", None),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_would_fail_or_mean_nothing_later_is_refused_before_any_job(what):
    diff, said, fits = WRONG[what]
    assert said in refused(diff)
    if fits is not None:
        accepted(fits)


MISSING = [
    ("toy1d", "samples"),
    ("toy1d", "steps"),
    ("mixture2d", "frontier_samples"),
    ("digits", "frontier_samples"),
    ("digits", "neighbours"),
    ("emoji", "neighbours"),
    ("moving", "neighbours"),
    ("moving", "video_samples"),
]


@pytest.mark.parametrize(("scenario", "key"), MISSING)
def test_a_score_that_lacks_its_number_is_refused(monkeypatch, scenario, key):
    """It was a KeyError after training."""
    import pdmd.config.experiment

    read = pdmd.config.experiment.read_mapping

    def without(path):
        found = read(path)
        if path.name != f"{scenario}.yaml":
            return found
        kept = {name: value for name, value in found["evaluate"].items() if name != key}
        return {**found, "evaluate": kept}

    monkeypatch.setattr(pdmd.config.experiment, "read_mapping", without)
    line = refused({"scenarios": [scenario]})
    assert f"evaluate.{key}: null: expected a value" in line or f"the key {key}" in line


def test_a_vae_of_video_is_for_pictures():
    """It takes 4 k + 1 frames, and clips have eight."""
    for scenario, fits in (("emoji", True), ("moving", False)):
        config = accepted({"scenarios": [scenario]}).configs[scenario, "dmd2"]
        config = {**config, "data": {**config["data"], "codec": VAE, "px": 32}}
        if fits:
            check_together(read_run(config), config, "here")
            continue
        with pytest.raises(UserError, match=r"data\.codec\.kind: .* expected 'patches'"):
            check_together(read_run(config), config, "here")


def test_a_flow_fit_on_a_part_of_the_interval_is_refused(monkeypatch):
    import pdmd.config.experiment

    read = pdmd.config.experiment.read_mapping
    mine = {"mine": {"kind": "fit", "fit": {"start": 0.5, "target": "flow"}}}
    late = {"late": {"kind": "fit", "fit": {"start": 0.75, "target": "biased"}}}

    def more(path):
        return read(path) | (mine | late if path.name == "methods.yaml" else {})

    monkeypatch.setattr(pdmd.config.experiment, "read_mapping", more)
    line = refused(own("toy1d", methods=["mine"]))
    assert "fit.start: 0.5: expected 0 for fit.target flow" in line
    assert "fit.start: 0.75: expected at most 0.5" in refused(own("toy1d", methods=["late"]))
    accepted(own("toy1d", methods=["full", "biased"]))


def test_teachers_compared_in_a_ring_are_refused(monkeypatch):
    """Snakemake would call it a cycle of jobs."""
    import pdmd.config.experiment

    read = pdmd.config.experiment.read_mapping
    mine = {"mine": {"kind": "teacher", "evaluate": {"beside": "teacher-guided"}}}

    def more(path):
        return read(path) | (mine if path.name == "methods.yaml" else {})

    monkeypatch.setattr(pdmd.config.experiment, "read_mapping", more)
    ring = ["teacher-guided", "teacher-guided-again", "mine"]
    told = {"teacher-guided-again": {"kind": "teacher", "evaluate": {"beside": "mine"}}}
    monkeypatch.setattr(
        pdmd.config.experiment,
        "read_mapping",
        lambda path: more(path) | (told if path.name == "methods.yaml" else {}),
    )
    line = refused(own("emoji", methods=ring, evaluate={"beside": "mine"}))
    monkeypatch.setattr(pdmd.config.experiment, "read_mapping", more)
    assert "expected teachers that are not compared in a ring" in line
    chain = accepted(own("emoji", methods=ring, evaluate={"beside": "teacher-guided-again"}))
    assert chain.beside("emoji", "mine") == "teacher-guided"
    assert chain.beside("emoji", "teacher-guided") == "teacher-guided-again"


# ---- what is written down twice, since configurations are read without torch


def test_numbers_of_prompts_are_those_that_are_drawn():
    from pdmd.metrics.diversity import LEAST as measured
    from pdmd.scenarios.digits.pictures import CLASSES
    from pdmd.scenarios.sprites import STYLES as styles
    from pdmd.stages.precompute import evaluation

    drawn = {"emoji": len(evaluation(emoji.prompts())), "moving": len(evaluation(moving.prompts()))}
    said = {name: kind.prompts for name, kind in kinds().items() if kind.prompts}
    assert {"digits": CLASSES, **drawn} == said
    assert (measured, len(styles), len(moving.OBJECTS)) == (LEAST, COPIES, OBJECTS)
    assert kinds()["digits"].classes == CLASSES


def test_counts_of_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    target = load_digits().target.tolist()
    assert len(target) == DIGITS
    assert min(target.count(digit) for digit in range(10)) == RAREST


def test_trajectories_are_compared_where_the_check_says():
    from pdmd.stages import trajectories

    assert trajectories.COMPARED_AT == COMPARED_AT


def test_known_networks_are_those_of_their_packages():
    import clip
    from torchvision.models.optical_flow import Raft_Large_Weights

    assert list(NETWORKS["clip"]) == clip.available_models()
    assert set(NETWORKS["flow"]) == {"opencv", *Raft_Large_Weights.__members__}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_rooms_are_those_that_phases_re_noise_in(scenario):
    """At least a tenth of the draws lie inside, by the phases that training uses."""
    import torch

    from pdmd.phases import split_phases

    names = ("steps", "boundaries", "shift", "interval", "margin")
    for run in accepted({"scenarios": [scenario]}).runs.values():
        switch = run.model.boundary or 0.0
        for phase in split_phases(**{n: getattr(run.student, n) for n in names}, switch=switch):
            t = phase.renoise_times(torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1])
            inside = (t > t.min()) & (t < t.max())
            assert float(inside.double().mean()) > 0.1
