# Every seed's samples of record.


def sampler(scenario, method):
    """The weights that a method's sampler is made of."""
    base = [f"{RESULTS}/{scenario}/base/model.safetensors"]
    if experiment.runs[scenario, method]["kind"] == "teacher":
        return base
    numbers = range(1, experiment.phases(scenario, method) + 1)
    folder = f"{RESULTS}/{scenario}/{method}"
    adapted = experiment.runs[scenario, method]["student"]["lora"] is not None
    return (base if adapted else []) + [
        f"{folder}/seed{seed}/phase{number}/expert.safetensors"
        for seed in experiment.seeds(scenario)
        for number in numbers
    ]


for _scenario in experiment.scenarios:

    rule:
        name:
            f"sample_{_scenario}"
        input:
            lambda w, s=_scenario: sampler(s, w.method),
            config=part("sample", _scenario),
        output:
            [
                f"{RESULTS}/{_scenario}/{{method}}/seed{seed}/samples.safetensors"
                for seed in experiment.seeds(_scenario)
            ],
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
            digest=digest("sample", _scenario),
        shell:
            "python -m pdmd sample --config {input.config} --seeds {params.seeds}"
