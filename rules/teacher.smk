# The network that students and fake scores start from; where the teacher is fitted, it is this.


rule fit_base:
    input:
        lambda w: list(map(str, outputs.fit_reads(part_of("base", w.scenario, w).content))),
        config=part("base"),
    output:
        [f"{RESULTS}/{{scenario}}/base/{name}" for name in outputs.BASE],
    benchmark:
        f"{RESULTS}/{{scenario}}/base/benchmark.tsv"
    priority: FIRST
    threads: lambda w: threads_of(w.scenario)
    resources:
        **REQUESTS.base(),
    params:
        digest=digest("base"),
    shell:
        "python -m pdmd {resources.launch}fit --config {input.config:q} --digest {params.digest}"
