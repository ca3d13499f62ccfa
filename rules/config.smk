# The configs that jobs read, resolved once. A job depends on its own sections alone, and
# Snakemake compares contents, so that a change runs again only what it concerns.
import json


def part(name):
    """The resolved sections that one kind of job reads."""
    return f"{RESULTS}/{{scenario}}/{{method}}/config/{name}.json"


def shared(name):
    """The same for jobs that serve all methods of a scenario."""
    return f"{RESULTS}/{{scenario}}/config/{name}.json"


localrules:
    all,


for _scenario in experiment.scenarios:

    rule:
        name:
            f"resolve_{_scenario}"
        output:
            [f"{RESULTS}/{_scenario}/{name}" for name in experiment.parts(_scenario)],
        params:
            scenario=_scenario,
            root=workflow.basedir,
            settings=json.dumps(experiment.settings),
            parts=json.dumps(experiment.parts(_scenario), sort_keys=True),
        shell:
            "python -m pdmd resolve --root {params.root:q} --scenario {params.scenario}"
            " --settings {params.settings:q}"
