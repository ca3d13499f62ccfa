# The configs that jobs read are written when the workflow is read, where they have changed. A job
# depends on the contents of its own sections (its `digest`), not on their files' dates, so that a
# change runs again only what it concerns.
from pdmd.catalogue import PROMPTED
from pdmd.config import write_configs
from pdmd.resources import Requests, light
from pdmd.storage import fingerprint

CONFIGS = write_configs(experiment)
REQUESTS = Requests(experiment)


def part(name, scenario="{scenario}", method="{method}"):
    """The resolved sections that one kind of job reads."""
    return ancient(f"{RESULTS}/{scenario}/{method}/config/{name}.json")


def shared(name):
    """The same for jobs that serve all methods of a scenario."""
    return ancient(f"{RESULTS}/{{scenario}}/config/{name}.json")


def digest(name, scenario=None):
    """A params function: the digest of those sections."""

    def of(wildcards):
        configs = CONFIGS[scenario or wildcards.scenario]
        folder = f"{wildcards.method}/" if "method" in wildcards.keys() else ""
        return fingerprint(configs[f"{folder}config/{name}.json"])

    return of


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
