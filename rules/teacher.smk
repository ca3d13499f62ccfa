# The network that students and fake scores start from; where the teacher is fitted, it is this.


rule fit_base:
    """Fit the network that students and fake scores start from, or take one that was kept."""
    input:
        GRAPH.fitted("base", outputs.fit_reads),
        config=GRAPH.config("base"),
    output:
        [f"{RESULTS}/{{scenario}}/base/{name}" for name in outputs.BASE],
    benchmark:
        f"{RESULTS}/{{scenario}}/base/benchmark.tsv"
    priority: FIRST
    conda:
        CONDA
    threads: GRAPH.threads
    resources:
        **REQUESTS.base(),
    params:
        digest=GRAPH.digest("base"),
    shell:
        "python -m pdmd {resources.launch}fit --config {input.config:q} --digest {params.digest}"
