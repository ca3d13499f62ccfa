# Training, phase by phase, and the banks that later phases start from.


for lane in GRAPH.lanes:

    if lane.has("fit"):

        rule:
            """Fit one velocity a seed to data, the curves of Fig. 2."""
            name:
                lane.name("fit")
            input:
                GRAPH.fitted("fit", outputs.fit_reads),
                config=GRAPH.config("fit"),
            output:
                lane.files(outputs.PHASE, "phase1"),
            benchmark:
                lane.benchmark("phase1")
            wildcard_constraints:
                scenario=lane.only,
                method=lane.methods("fit"),
                group=lane.group,
            priority: lane.urgency
            conda:
                CONDA
            threads: GRAPH.threads_of_all
            resources:
                **lane.requests("fit"),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("fit"),
            shell:
                "python -m pdmd {resources.launch}fit --config {input.config:q}"
                " --digest {params.digest} --seeds {params.seeds}"

    if lane.has("distill"):

        rule:
            """Run the frozen experts of earlier phases once, and keep what they hand on."""
            name:
                lane.name("bank")
            input:
                lane.reads(outputs.frozen_reads),
                config=GRAPH.config("bank"),
            output:
                [directory(folder) for folder in lane.folders("phase{phase}/bank")],
            wildcard_constraints:
                scenario=lane.only,
                method=lane.methods("distill"),
                group=lane.group,
            priority: lane.urgency
            conda:
                CONDA
            threads: GRAPH.threads_of_all
            resources:
                **lane.requests("bank"),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("bank"),
            shell:
                "python -m pdmd {resources.launch}bank --config {input.config:q} --digest {params.digest}"
                " --phase {wildcards.phase} --seeds {params.seeds}"

    if lane.has("distill"):

        rule:
            """Train the expert of one phase."""
            name:
                lane.name("distill")
            input:
                lane.reads(outputs.training_reads),
                lane.banks,
                config=GRAPH.config("distill"),
            output:
                lane.files(outputs.PHASE, "phase{phase}"),
            benchmark:
                lane.benchmark("phase{phase}")
            wildcard_constraints:
                scenario=lane.only,
                method=lane.methods("distill"),
                group=lane.group,
            priority: lane.urgency
            conda:
                CONDA
            threads: GRAPH.threads_of_all
            resources:
                **lane.requests("distill"),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("distill"),
            shell:
                "python -m pdmd {resources.launch}distill --config {input.config:q}"
                " --digest {params.digest} --phase {wildcards.phase} --seeds {params.seeds}"
