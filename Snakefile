from snakemake.utils import min_version

from pdmd.config.plan import home, open_workflow
from pdmd.jobs.scheduling import calm

min_version("9.0")
calm()
HOME = home(workflow)


configfile: str(HOME / "config" / "config.yaml")


report: "workflow/report/workflow.rst"


experiment, CONFIGS = open_workflow(HOME, config, workflow.configfiles, workflow.is_main_process)
RESULTS = experiment.settings["results"]


include: "rules/config.smk"
include: "rules/data.smk"
include: "rules/released.smk"
include: "rules/teacher.smk"
include: "rules/distill.smk"
include: "rules/sample.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/claims.smk"
include: "rules/paper.smk"
include: "rules/ablations.smk"


rule all:
    """Everything that the configuration asks for."""
    default_target: True
    input:
        [path for scenario in experiment.scenarios for path in GRAPH.targets(scenario)],
        CLAIMED.files,
        PAPER.every(),
