# The configs that jobs read are written when the workflow is read, each into a file named by its
# digest, so that nothing a running workflow reads ever changes. A job depends on the contents of
# its own sections, not on files' dates: a change runs again only what it concerns.
from pdmd import outputs
from pdmd.catalogue import PROMPTED
from pdmd.resources import Requests, light
from pdmd.sources import drawing_code, scoring_code
from pdmd.storage import fingerprint

REQUESTS = Requests(experiment)
# What tables, figures and scores are made by: they are made again when it changes.
CODE = {name: drawing_code(name) for name in ("tables", "figures")} | {"scores": scoring_code()}


def part_of(name, scenario, wildcards):
    """The resolved sections that one kind of job reads: of a method, or of a whole scenario."""
    folder = f"{wildcards.method}/" if "method" in wildcards.keys() else ""
    return CONFIGS[scenario or wildcards.scenario][f"{folder}config/{name}.json"]


def part(name, scenario=None):
    """An input function: their file."""
    return lambda wildcards: ancient(str(part_of(name, scenario, wildcards).path))


def digest(name, scenario=None):
    """A params function: their digest."""
    return lambda wildcards: part_of(name, scenario, wildcards).digest


def reads(declared, scenario=None, seeds=None):
    """An input function: what a method's stage reads for every seed."""

    def files(wildcards):
        name = scenario or wildcards.scenario
        run = experiment.runs[name, wildcards.method]
        every = seeds or experiment.seeds(name)
        phase = [int(wildcards.phase)] if "phase" in wildcards.keys() else []
        paths = (path for seed in every for path in declared(run, seed, *phase))
        return list(dict.fromkeys(map(str, paths)))

    return files


def threads_of(scenario):
    """CPU threads of a job, as its config has them."""
    return experiment.scenario(scenario)["threads"]


# Priorities: what every method waits for, then the longest chains, those of scenarios with prompts
# and then by number of phases.
FIRST = 20
URGENCY = dict.fromkeys(experiment.scenarios, 0)
for _scenario, _method in experiment.runs:
    _prompted = experiment.runs[_scenario, _method]["data"]["kind"] in PROMPTED
    _own = 10 * _prompted + experiment.phases(_scenario, _method)
    URGENCY[_scenario] = max(URGENCY[_scenario], _own)


localrules:
    all,
