# Every seed's samples of record.


def per_seed(scenario, names):
    """Some files of every seed of a method, the method left open."""
    folders = [f"{RESULTS}/{scenario}/{{method}}/seed{seed}" for seed in experiment.seeds(scenario)]
    return [f"{folder}/{name}" for folder in folders for name in names]


for _scenario in experiment.scenarios:

    rule:
        name:
            f"sample_{_scenario}"
        input:
            reads(lambda run, seed: outputs.data_reads(run), _scenario),
            reads(outputs.sampler_reads, _scenario),
            config=part("sample", _scenario),
        output:
            per_seed(_scenario, outputs.SAMPLES),
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
            "python -m pdmd sample --config {input.config:q} --digest {params.digest}"
            " --seeds {params.seeds}"
