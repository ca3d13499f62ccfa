# Training, phase by phase. Seeds that train together are one job, hence a rule for each group.
from pdmd.parts import uses_bank
from pdmd.paths import seeds_name


def run_dir(scenario, seeds, phase="{phase}"):
    """The phase folders of some seeds, other wildcards left open."""
    return [f"{RESULTS}/{scenario}/{{method}}/seed{seed}/phase{phase}" for seed in seeds]


def trained(scenario, seeds, phase="{phase}"):
    """The files of a phase of some seeds."""
    return [f"{d}/{name}" for d in run_dir(scenario, seeds, phase) for name in outputs.PHASE]


def banks(scenario, seeds):
    """An input function: the banks that a later phase starts from."""

    def folders(wildcards):
        used = uses_bank(experiment.runs[scenario, wildcards.method])
        later = int(wildcards.phase) > 1 and used
        return expand([f"{d}/bank" for d in run_dir(scenario, seeds)] if later else [], **wildcards)

    return folders


def fit_inputs(scenario):
    """An input function: what fitting one velocity a seed reads."""
    return lambda w: list(map(str, outputs.fit_reads(part_of("fit", scenario, w).content)))


def alternatives(names):
    """A wildcard constraint: one of these names, or nothing at all."""
    return "|".join(names) or "(?!)"


for _scenario in experiment.scenarios:
    for _seeds in experiment.groups(_scenario):
        _job = f"{_scenario}_seeds{seeds_name(_seeds, '_')}"

        rule:
            name:
                f"fit_{_job}"
            input:
                fit_inputs(_scenario),
                config=part("fit", _scenario),
            output:
                trained(_scenario, _seeds, 1),
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
                "python -m pdmd {resources.launch}fit --config {input.config:q}"
                " --digest {params.digest} --seeds {params.seeds}"

        rule:
            name:
                f"bank_{_job}"
            input:
                reads(outputs.frozen_reads, _scenario, _seeds),
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
                "python -m pdmd bank --config {input.config:q} --digest {params.digest}"
                " --phase {wildcards.phase} --seeds {params.seeds}"

        rule:
            name:
                f"distill_{_job}"
            input:
                reads(outputs.frozen_reads, _scenario, _seeds),
                banks(_scenario, _seeds),
                config=part("distill", _scenario),
            output:
                trained(_scenario, _seeds),
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
                "python -m pdmd {resources.launch}distill --config {input.config:q}"
                " --digest {params.digest} --phase {wildcards.phase} --seeds {params.seeds}"
