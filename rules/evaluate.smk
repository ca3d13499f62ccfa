# Scores of samples, and diagnostics of samplers: each with files of its own, made again by itself.


for lane in GRAPH.lanes:

    if lane.has("fit"):

        rule:
            """Compare fitted velocities with the exact one, and draw their trajectories."""
            name:
                lane.name("trajectories")
            input:
                lane.files(["phase1/expert.safetensors"]),
                config=GRAPH.config("trajectories"),
            output:
                lane.files(outputs.TRAJECTORIES),
            wildcard_constraints:
                scenario=lane.only,
                method=lane.methods("fit"),
                group=lane.group,
            priority: lane.urgency
            conda:
                CONDA
            threads: GRAPH.threads
            resources:
                **light(),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("trajectories"),
                code=CODE["scores"],
            shell:
                "python -m pdmd trajectories --config {input.config:q} --digest {params.digest}"
                " --seeds {params.seeds}"

    if lane.seen != NOTHING:

        rule:
            """Keep what frozen networks see in samples of record."""
            name:
                lane.name("features")
            input:
                lane.reads(outputs.feature_reads),
                config=GRAPH.config("features"),
            output:
                lane.files(outputs.FEATURED),
            wildcard_constraints:
                scenario=lane.seen,
                method=lane.methods("teacher", "distill"),
                group=lane.group,
            priority: lane.urgency
            group:
                lane.bundle
            conda:
                CONDA
            threads: GRAPH.threads_of_all
            resources:
                **lane.requests("features"),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("features"),
            shell:
                "python -m pdmd {resources.launch}features --config {input.config:q} --digest {params.digest}"
                " --seeds {params.seeds}"

    for stage, scenarios, scores in lane.scored if lane.has("teacher", "distill") else []:

        rule:
            """Score samples of record, and those of each stratum of prompts."""
            name:
                lane.name(stage)
            input:
                lane.reads(outputs.score_reads),
                config=GRAPH.config("score"),
            output:
                lane.files(scores),
            wildcard_constraints:
                scenario=scenarios,
                method=lane.methods("teacher", "distill"),
                group=lane.group,
            priority: lane.urgency
            group:
                lane.bundle
            conda:
                CONDA
            threads: GRAPH.threads
            resources:
                **bundled(),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("score"),
                code=CODE["scores"],
            shell:
                "python -m pdmd score --config {input.config:q} --digest {params.digest}"
                " --seeds {params.seeds}"

    for diagnostic in lane.diagnostics:

        rule:
            """Look at a trained sampler: over training, by exit, at boundaries, with experts swapped."""
            name:
                lane.name(diagnostic)
            input:
                lane.reads(outputs.DIAGNOSTICS[diagnostic].reads),
                config=GRAPH.config("diagnostics"),
            output:
                lane.diagnostic(diagnostic),
            wildcard_constraints:
                scenario=lane.diagnosed(diagnostic)[0],
                method=lane.diagnosed(diagnostic)[1],
                group=lane.group,
            priority: lane.urgency
            group:
                lane.bundle
            conda:
                CONDA
            threads: GRAPH.threads
            resources:
                **bundled(),
            params:
                diagnostic=diagnostic,
                seeds=lane.named,
                digest=GRAPH.digest("diagnostics"),
                code=CODE["scores"],
            shell:
                "python -m pdmd {params.diagnostic} --config {input.config:q} --digest {params.digest}"
                " --seeds {params.seeds}"


rule validate:
    """Try the metrics on real data with known damage."""
    input:
        GRAPH.data("pictures.safetensors"),
        f"{RESULTS}/clip/small_clip.pt",
        f"{RESULTS}/weights.json",
        config=GRAPH.config("classifier"),
    output:
        multiext(f"{RESULTS}/metrics_validation/{{scenario}}", ".csv", ".md", ".tex", ".json"),
    benchmark:
        f"{RESULTS}/metrics_validation/{{scenario}}.benchmark.tsv"
    wildcard_constraints:
        scenario=GRAPH.scenarios(with_prompts),
    conda:
        CONDA
    threads: GRAPH.threads
    resources:
        **light(),
    params:
        digest=GRAPH.digest("classifier"),
        table=lambda w: f"{RESULTS}/metrics_validation/{w.scenario}",
    shell:
        "python -m pdmd validate --config {input.config:q} --digest {params.digest}"
        " --output {params.table:q}"
