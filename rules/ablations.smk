# `snakemake ablations`: each is a workflow of its own beside what is there, on what Snakemake was started on.
import sys

from pdmd.jobs.ablate import cores, listed, places


localrules:
    ablations,


rule ablations:
    """Run every ablation of config/ablations whose scenario is asked for, to its table and figure."""
    conda:
        CONDA
    threads: cores(sys.argv)
    params:
        files=listed(HOME, experiment.scenarios),
        places=places(sys.argv),
    shell:
        "for file in {params.files:q}; do"
        " python -m pdmd ablate --planned $file -- -c{threads} {params.places:q}; done"
