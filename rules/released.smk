# Released models: their weights, the embeddings of prompts, first frames, and what a user takes home.


rule tiny:
    """Write a tiny random model of a released family, to try the chain without weights."""
    output:
        directory(f"{RESULTS}/models/{{family}}"),
    wildcard_constraints:
        family="[a-z0-9.-]+",
    priority: FIRST
    conda:
        CONDA
    resources:
        **light(),
    shell:
        "python -m pdmd tiny {wildcards.family:q} --output {output:q}"


rule fetch:
    """Find a released model, check its folder, and record what its files are."""
    input:
        GRAPH.tiny_model,
    output:
        f"{RESULTS}/{{scenario}}/base/{outputs.MANIFEST}",
    wildcard_constraints:
        scenario=GRAPH.scenarios(released),
    priority: FIRST
    conda:
        CONDA
    resources:
        **REQUESTS.fetching(),
    params:
        family=GRAPH.model("family"),
        source=GRAPH.model("source"),
        revision=GRAPH.revision,
    shell:
        "python -m pdmd fetch {params.family:q} --source {params.source:q} {params.revision}"
        " --output {output:q}"


rule find_networks:
    """Find the networks that samples will be looked at by, before anything is trained."""
    output:
        f"{RESULTS}/{{scenario}}/base/{outputs.NETWORKS}",
    wildcard_constraints:
        scenario=GRAPH.scenarios(released),
    priority: FIRST
    conda:
        CONDA
    resources:
        **REQUESTS.finding(),
    params:
        networks=GRAPH.networks,
    shell:
        "python -m pdmd find-networks {params.networks} --output {output:q}"


rule embed_prompts:
    """Encode prompts by the model's own text encoder, shard by shard."""
    input:
        GRAPH.shared_reads(outputs.text_reads),
        config=GRAPH.config("embedding"),
    output:
        GRAPH.data(*outputs.STORE),
        directory(GRAPH.data("store")),
    benchmark:
        f"{RESULTS}/{{scenario}}/data/embedding.benchmark.tsv"
    wildcard_constraints:
        scenario=GRAPH.scenarios(released),
    priority: FIRST
    conda:
        CONDA
    threads: GRAPH.threads_of_all
    resources:
        **REQUESTS.preparing(),
    params:
        digest=GRAPH.digest("embedding"),
    shell:
        "python -m pdmd {resources.launch}embed-prompts --config {input.config:q}"
        " --digest {params.digest}"


rule encode_images:
    """Encode the first frames that image-to-video is given, at every size."""
    input:
        GRAPH.shared_reads(outputs.text_reads),
        config=GRAPH.config("embedding"),
    output:
        GRAPH.data(outputs.IMAGES),
        directory(GRAPH.data("images")),
    wildcard_constraints:
        scenario=GRAPH.scenarios(released),
    priority: FIRST
    conda:
        CONDA
    threads: GRAPH.threads_of_all
    resources:
        **REQUESTS.preparing(),
    params:
        digest=GRAPH.digest("embedding"),
    shell:
        "python -m pdmd {resources.launch}encode-images --config {input.config:q}"
        " --digest {params.digest}"


for lane in GRAPH.lanes:

    if lane.released != NOTHING:

        rule:
            """Draw pictures from every snapshot of a student's training."""
            name:
                "previews"
            input:
                lane.reads(outputs.preview_reads),
                config=GRAPH.config("previews"),
            output:
                lane.files(outputs.PREVIEWED),
            wildcard_constraints:
                scenario=lane.released,
                method=lane.methods("distill"),
                group=lane.group,
            priority: lane.urgency
            conda:
                CONDA
            threads: GRAPH.threads_of_all
            resources:
                **lane.requests("sample"),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("previews"),
            shell:
                "python -m pdmd {resources.launch}previews --config {input.config:q}"
                " --digest {params.digest} --seeds {params.seeds}"

        rule:
            """Write a student's adapters as diffusers, ComfyUI and LightX2V load them."""
            name:
                "export"
            input:
                lane.reads(outputs.export_reads),
                config=GRAPH.config("export"),
            output:
                [directory(folder) for folder in lane.folders(outputs.EXPORT)],
            wildcard_constraints:
                scenario=lane.released,
                method=lane.methods("distill"),
                group=lane.group,
            priority: lane.urgency
            conda:
                CONDA
            threads: GRAPH.threads
            resources:
                **light(),
            params:
                seeds=lane.named,
                digest=GRAPH.digest("export"),
            shell:
                "python -m pdmd export --config {input.config:q} --digest {params.digest}"
                " --seeds {params.seeds}"
