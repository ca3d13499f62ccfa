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
    threads: GRAPH.threads_of_all
    resources:
        **REQUESTS.base(),
    params:
        digest=GRAPH.digest("base"),
    shell:
        "python -m pdmd {resources.launch}fit --config {input.config:q} --digest {params.digest}"


rule measure:
    """Measure the teacher's errors of single Euler steps, over all t -> s."""
    input:
        GRAPH.shared_reads(outputs.measure_reads),
        config=GRAPH.config("measure"),
    output:
        [f"{RESULTS}/{{scenario}}/base/{name}" for name in outputs.MEASURED],
    benchmark:
        f"{RESULTS}/{{scenario}}/base/measuring.benchmark.tsv"
    wildcard_constraints:
        scenario=GRAPH.measured,
    priority: FIRST
    conda:
        CONDA
    threads: GRAPH.threads_of_all
    resources:
        **REQUESTS.measuring(),
    params:
        digest=GRAPH.digest("measure"),
    shell:
        "python -m pdmd {resources.launch}measure --config {input.config:q}"
        " --digest {params.digest}"


rule grid:
    """Choose a method's noise levels and phase ends by the measured errors."""
    input:
        GRAPH.chosen_from,
        config=GRAPH.config("grid"),
    output:
        [f"{RESULTS}/{{scenario}}/{{method}}/{name}" for name in outputs.CHOSEN],
    wildcard_constraints:
        scenario=GRAPH.measured,
        method=GRAPH.choosing,
    priority: FIRST
    conda:
        CONDA
    resources:
        **light(),
    params:
        digest=GRAPH.digest("grid"),
    shell:
        "python -m pdmd grid --config {input.config:q} --digest {params.digest}"


rule range:
    """Choose a method's re-noising ranges by how far its untrained student is off."""
    input:
        GRAPH.ranged_by,
        config=GRAPH.config("range"),
    output:
        [f"{RESULTS}/{{scenario}}/{{method}}/{name}" for name in outputs.RANGED],
    benchmark:
        f"{RESULTS}/{{scenario}}/{{method}}/ranging.benchmark.tsv"
    wildcard_constraints:
        scenario=GRAPH.ranged,
        method=GRAPH.ranging,
    priority: FIRST
    conda:
        CONDA
    threads: GRAPH.threads_of_all
    resources:
        **REQUESTS.ranging(),
    params:
        digest=GRAPH.digest("range"),
    shell:
        "python -m pdmd {resources.launch}range --config {input.config:q}"
        " --digest {params.digest}"
