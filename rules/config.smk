# The configs that jobs read are written when the workflow is read, each into a file named by its
# digest, so that nothing a running workflow reads ever changes. A job depends on the contents of
# its own sections, not on files' dates: a change runs again only what it concerns.
from pathlib import Path

from pdmd.config.plan import VARIABLE
from pdmd.files.code import drawing_code, scoring_code
from pdmd.files.storage import fingerprint
from pdmd.jobs.claimed import Claimed
from pdmd.jobs.graph import Graph
from pdmd.jobs.lanes import classed, NOTHING, released, with_prompts
from pdmd.jobs.papered import Papered
from pdmd.jobs.resources import Requests, bundled, light
from pdmd.stages import outputs

GRAPH = Graph(experiment, CONFIGS, HOME)
CLAIMED = Claimed(experiment)
PAPER = Papered(GRAPH)
REQUESTS = Requests(experiment)
# What tables, figures and scores are made by: they are made again when it changes.
DRAWN = ("tables", "figures", "claims", "paper")
CODE = {name: drawing_code(name) for name in DRAWN} | {"scores": scoring_code()}
CONDA = "../envs/pdmd.yaml"
FIRST = 20  # the priority of what every method waits for


localrules:
    all,


envvars:
    VARIABLE,


wildcard_constraints:
    scenario="|".join(experiment.scenarios),
    method="[a-z0-9-]+",
    phase="[0-9]+",
