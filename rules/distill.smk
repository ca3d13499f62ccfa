# Training, phase by phase. Seeds that train together are one job, hence a rule for each group.

RUN_FILES = ["expert.safetensors", "snapshots.safetensors", "metrics.json", "stats.jsonl"]


def run_dir(scenario, seeds, phase="{phase}"):
    """The phase folders of some seeds, other wildcards left open."""
    return [f"{RESULTS}/{scenario}/{{method}}/seed{seed}/phase{phase}" for seed in seeds]


def earlier(scenario, seeds):
    """An input function: the frozen experts and the bank that a phase needs."""

    def files(wildcards):
        number, method = int(wildcards.phase), wildcards.method
        folders = [f for p in range(1, number) for f in run_dir(scenario, seeds, p)]
        found = [f"{folder}/expert.safetensors" for folder in folders]
        if number > 1 and experiment.runs[scenario, method]["bank"]["rows"]:
            found += [f"{folder}/bank" for folder in run_dir(scenario, seeds, number)]
        return expand(found, method=method)

    return files


def frozen(scenario, seeds):
    """An input function: the frozen experts alone."""
    return lambda w: [path for path in earlier(scenario, seeds)(w) if not path.endswith("bank")]


def alternatives(names):
    """A wildcard constraint: one of these names, or nothing at all."""
    return "|".join(names) or "(?!)"


for _scenario in experiment.scenarios:
    for _seeds in experiment.groups(_scenario):
        _job = f"{_scenario}_seeds{'_'.join(map(str, _seeds))}"

        rule:
            name:
                f"fit_{_job}"
            input:
                latents(_scenario),
                config=part("fit", _scenario),
            output:
                [f"{d}/{name}" for d in run_dir(_scenario, _seeds, 1) for name in RUN_FILES],
            benchmark:
                f"{RESULTS}/{_scenario}/{{method}}/seed{_seeds[0]}/phase1/benchmark.tsv"
            wildcard_constraints:
                method=alternatives(experiment.select(_scenario, ["fit"])),
            priority: URGENCY[_scenario]
            threads: threads_of(_scenario)
            resources:
                **REQUESTS.fit(_scenario, _seeds),
            params:
                seeds=_seeds,
                digest=digest("fit", _scenario),
            shell:
                "python -m pdmd {resources.launch}fit --config {input.config}"
                " --seeds {params.seeds}"

        rule:
            name:
                f"bank_{_job}"
            input:
                frozen(_scenario, _seeds),
                base=f"{RESULTS}/{_scenario}/base/model.safetensors",
                config=part("bank", _scenario),
            output:
                [directory(f"{d}/bank") for d in run_dir(_scenario, _seeds)],
            wildcard_constraints:
                method=alternatives(experiment.select(_scenario, ["distill"])),
            priority: URGENCY[_scenario]
            threads: threads_of(_scenario)
            resources:
                **light(),
            params:
                seeds=_seeds,
                digest=digest("bank", _scenario),
            shell:
                "python -m pdmd bank --config {input.config} --phase {wildcards.phase}"
                " --seeds {params.seeds}"

        rule:
            name:
                f"distill_{_job}"
            input:
                earlier(_scenario, _seeds),
                base=f"{RESULTS}/{_scenario}/base/model.safetensors",
                config=part("distill", _scenario),
            output:
                [f"{d}/{name}" for d in run_dir(_scenario, _seeds) for name in RUN_FILES],
            benchmark:
                f"{RESULTS}/{_scenario}/{{method}}/seed{_seeds[0]}/phase{{phase}}/benchmark.tsv"
            wildcard_constraints:
                method=alternatives(experiment.select(_scenario, ["distill"])),
            priority: URGENCY[_scenario]
            threads: threads_of(_scenario)
            resources:
                **REQUESTS.distill(_scenario, _seeds),
            params:
                seeds=_seeds,
                digest=digest("distill", _scenario),
            shell:
                "python -m pdmd {resources.launch}distill --config {input.config}"
                " --phase {wildcards.phase} --seeds {params.seeds}"
