# Every seed's samples of record, and the pictures or clips that they decode to.


for lane in GRAPH.lanes:

    if lane.has("teacher", "distill"):

        rule:
            """Draw every seed's samples of record."""
            name:
                lane.name("sample")
            input:
                lane.reads(lambda run, seed: outputs.condition_reads(run)),
                lane.reads(outputs.sampler_reads),
                config=GRAPH.config("sample"),
            output:
                lane.files(outputs.SAMPLES),
            wildcard_constraints:
                scenario=lane.only,
                method=lane.methods("teacher", "distill"),
                group=lane.group,
            priority: lane.urgency
            group:
                lane.bundle
            conda:
                CONDA
            threads: GRAPH.threads_of_all
            resources:
                **lane.requests("sample"),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("sample"),
            shell:
                "python -m pdmd {resources.launch}sample --config {input.config:q} --digest {params.digest}"
                " --seeds {params.seeds}"

    if lane.seen != NOTHING:

        rule:
            """Decode samples of record to pictures or clips."""
            name:
                lane.name("decode")
            input:
                lane.reads(outputs.decode_reads),
                config=GRAPH.config("decode"),
            output:
                lane.files(outputs.DECODED),
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
                **lane.requests("decode"),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("decode"),
            shell:
                "python -m pdmd {resources.launch}decode --config {input.config:q} --digest {params.digest}"
                " --seeds {params.seeds}"
