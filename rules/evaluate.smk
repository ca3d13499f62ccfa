# Scores of samples, and of samplers over training.


def scored_alike(scenario):
    """Name of a rule -> methods whose scoring writes the same files."""
    alike = {"teachers": experiment.select(scenario, ["teacher"]), "students": [], "experts": []}
    for method in experiment.select(scenario, ["distill"]):
        two = outputs.exchanges(experiment.runs[scenario, method])
        alike["experts" if two else "students"].append(method)
    return {name: methods for name, methods in alike.items() if methods}


for _scenario in experiment.scenarios:
    for _name, _methods in scored_alike(_scenario).items():

        rule:
            name:
                f"evaluate_{_name}_{_scenario}"
            input:
                reads(outputs.score_reads, _scenario),
                config=part("evaluate", _scenario),
            output:
                per_seed(_scenario, outputs.evaluation(experiment.runs[_scenario, _methods[0]])),
            wildcard_constraints:
                method=alternatives(_methods),
            priority: URGENCY[_scenario]
            group:
                "score"
            threads: threads_of(_scenario)
            resources:
                **light(),
            params:
                seeds=experiment.seeds(_scenario),
                digest=digest("evaluate", _scenario),
                code=CODE["scores"],
            shell:
                "python -m pdmd evaluate --config {input.config:q} --digest {params.digest}"
                " --seeds {params.seeds}"

    rule:
        name:
            f"trajectories_{_scenario}"
        input:
            per_seed(_scenario, ["phase1/expert.safetensors"]),
            config=part("evaluate", _scenario),
        output:
            per_seed(_scenario, outputs.TRAJECTORIES),
        wildcard_constraints:
            method=alternatives(experiment.select(_scenario, ["fit"])),
        priority: URGENCY[_scenario]
        threads: threads_of(_scenario)
        resources:
            **light(),
        params:
            seeds=experiment.seeds(_scenario),
            digest=digest("evaluate", _scenario),
            code=CODE["scores"],
        shell:
            "python -m pdmd evaluate --config {input.config:q} --digest {params.digest}"
            " --seeds {params.seeds}"


rule validate:
    input:
        data("pictures.safetensors"),
        f"{RESULTS}/clip/small_clip.pt",
        f"{RESULTS}/weights.json",
        config=part("classifier"),
    output:
        multiext(f"{RESULTS}/metrics_validation/{{scenario}}", ".csv", ".md", ".tex", ".json"),
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
        "python -m pdmd validate --config {input.config:q} --digest {params.digest}"
        " --output {params.table:q}"
