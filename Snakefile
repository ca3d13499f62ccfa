from pathlib import Path

from snakemake.utils import min_version

from pdmd.config import Experiment, load_experiment

min_version("9.0")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


experiment = load_experiment(Path(workflow.basedir), config)
RESULTS = config["results"]


wildcard_constraints:
    scenario="[a-z0-9]+",
    method="[a-z0-9-]+",
    seed="[0-9]+",
    phase="[0-9]+",


include: "rules/config.smk"
include: "rules/data.smk"
include: "rules/teacher.smk"
include: "rules/distill.smk"
include: "rules/sample.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        [path for scenario in experiment.scenarios for path in scenario_targets(scenario)],


onsuccess:
    if list(Path(RESULTS).glob("*/tables")):  # a part, as of teachers alone, may have none
        shell("python -m pdmd report --results {RESULTS}")
