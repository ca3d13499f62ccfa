# Scores of samples, and of samplers over training.


def snapshots(scenario, method):
    """What the frontier over training is drawn from."""
    number, folder = experiment.phases(scenario, method), f"{RESULTS}/{scenario}/{method}"
    if experiment.runs[scenario, method]["kind"] != "distill":
        return []
    return [
        f"{folder}/seed{seed}/phase{number}/snapshots.safetensors"
        for seed in experiment.seeds(scenario)
    ]


def judges(scenario):
    """What pictures are scored with."""
    kind, names = experiment.scenario(scenario)["data"]["kind"], []
    if kind == "digits":
        names = ["codec", "train", "heldout", "classifier"]
    if kind in PROMPTED:
        names = ["codec", "pictures", "judge"]
    found = [f"{RESULTS}/{scenario}/data/{name}.safetensors" for name in names]
    networks = [f"{RESULTS}/clip/small_clip.pt", f"{RESULTS}/weights.json"]
    return found + (networks if kind in PROMPTED else [])


def teachers(scenario, method):
    """The teacher's samples, which those of students are compared with, and their features."""
    beside = experiment.beside(scenario, method)
    if beside is None:
        return []
    return [
        f"{RESULTS}/{scenario}/{beside}/seed{seed}/{name}.safetensors"
        for seed in experiment.seeds(scenario)
        for name in ("samples", "features")
    ]


def scores(scenario):
    """What scoring writes for every seed; features only where networks are costly."""
    prompted = experiment.scenario(scenario)["data"]["kind"] in PROMPTED
    names = ["metrics.json", *(["features.safetensors"] if prompted else [])]
    return [path for name in names for path in per_seed(scenario, name)]


def per_seed(scenario, name):
    """One file of every seed of a method."""
    return [
        f"{RESULTS}/{scenario}/{{method}}/seed{seed}/{name}" for seed in experiment.seeds(scenario)
    ]


for _scenario in experiment.scenarios:

    rule:
        name:
            f"evaluate_{_scenario}"
        input:
            per_seed(_scenario, "samples.safetensors"),
            judges(_scenario),
            lambda w, s=_scenario: teachers(s, w.method),
            lambda w, s=_scenario: snapshots(s, w.method),
            config=part("evaluate", _scenario),
        output:
            scores(_scenario),
        wildcard_constraints:
            method=alternatives(experiment.select(_scenario, ["teacher", "distill"])),
        priority: URGENCY[_scenario]
        group:
            "score"
        threads: threads_of(_scenario)
        resources:
            **light(),
        params:
            seeds=experiment.seeds(_scenario),
            digest=digest("evaluate", _scenario),
        shell:
            "python -m pdmd evaluate --config {input.config} --seeds {params.seeds}"

    rule:
        name:
            f"trajectories_{_scenario}"
        input:
            per_seed(_scenario, "phase1/expert.safetensors"),
            config=part("evaluate", _scenario),
        output:
            per_seed(_scenario, "metrics.json"),
            per_seed(_scenario, "samples.safetensors"),
        wildcard_constraints:
            method=alternatives(experiment.select(_scenario, ["fit"])),
        priority: URGENCY[_scenario]
        threads: threads_of(_scenario)
        resources:
            **light(),
        params:
            seeds=experiment.seeds(_scenario),
            digest=digest("evaluate", _scenario),
        shell:
            "python -m pdmd evaluate --config {input.config} --seeds {params.seeds}"


rule validate:
    input:
        f"{RESULTS}/{{scenario}}/data/pictures.safetensors",
        f"{RESULTS}/clip/small_clip.pt",
        f"{RESULTS}/weights.json",
        config=shared("classifier"),
    output:
        multiext(f"{RESULTS}/metrics_validation/{{scenario}}", ".csv", ".md", ".tex"),
    benchmark:
        f"{RESULTS}/metrics_validation/{{scenario}}.benchmark.tsv"
    wildcard_constraints:
        scenario=scenarios_of(PROMPTED),
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("classifier"),
        table=lambda w: f"{RESULTS}/metrics_validation/{w.scenario}",
    shell:
        "python -m pdmd validate --config {input.config} --output {params.table}"
