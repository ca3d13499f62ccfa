from pathlib import Path

from snakemake.utils import min_version

from pdmd.plan import VARIABLE, open_workflow, settings_file

min_version("9.0")


configfile: str(Path(workflow.basedir) / "config" / "config.yaml")


report: "workflow/report/workflow.rst"


experiment, CONFIGS = open_workflow(
    Path(workflow.basedir), config, workflow.configfiles, workflow.is_main_process
)
RESULTS = experiment.settings["results"]


envvars:
    VARIABLE,


wildcard_constraints:
    scenario="|".join(experiment.scenarios),
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
    if all(Path(path).exists() for path in reported()):  # who asks for a part may lack some
        settings = settings_file()
        shell(
            "python -m pdmd report --results {RESULTS:q} --settings {settings:q}"
            " -- --snakefile {workflow.main_snakefile:q}"
        )
