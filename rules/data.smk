# Pictures and clips to latents, prompts to embeddings, and the classifiers that score samples.


rule weights:
    """Fetch the weights of frozen networks into the cache."""
    output:
        f"{RESULTS}/weights.json",
    priority: FIRST
    conda:
        CONDA
    resources:
        **light(),
    shell:
        "python -m pdmd weights --output {output:q}"


rule encode:
    """Encode pictures of digits to whitened latents."""
    input:
        config=GRAPH.config("data"),
    output:
        GRAPH.data(*outputs.ENCODED),
    wildcard_constraints:
        scenario=GRAPH.scenarios(classed),
    conda:
        CONDA
    threads: GRAPH.threads
    resources:
        **light(),
    params:
        digest=GRAPH.digest("data"),
    shell:
        "python -m pdmd encode --config {input.config:q} --digest {params.digest}"


rule render:
    """Render pictures or clips, or read a user's own, and encode them to latents."""
    input:
        GRAPH.shared_reads(outputs.render_reads),
        config=GRAPH.config("data"),
    output:
        GRAPH.data(*outputs.RENDERED),
    wildcard_constraints:
        scenario=GRAPH.scenarios(with_prompts),
    priority: FIRST
    conda:
        CONDA
    threads: GRAPH.threads
    resources:
        **light(),
    params:
        digest=GRAPH.digest("data"),
    shell:
        "python -m pdmd render --config {input.config:q} --digest {params.digest}"


rule embed:
    """Encode prompts by the text encoder."""
    input:
        GRAPH.data("prompts.json"),
        f"{RESULTS}/weights.json",
        config=GRAPH.config("text"),
    output:
        GRAPH.data(*outputs.EMBEDDED),
    wildcard_constraints:
        scenario=GRAPH.scenarios(with_prompts),
    priority: FIRST
    conda:
        CONDA
    threads: GRAPH.threads
    resources:
        **light(),
    params:
        digest=GRAPH.digest("text"),
    shell:
        "python -m pdmd embed --config {input.config:q} --digest {params.digest}"


rule classifier:
    """Train the classifier that scores digits."""
    input:
        GRAPH.data("train.safetensors", "heldout.safetensors"),
        config=GRAPH.config("classifier"),
    output:
        GRAPH.data(*outputs.CLASSIFIER),
    benchmark:
        f"{RESULTS}/{{scenario}}/data/classifier.benchmark.tsv"
    wildcard_constraints:
        scenario=GRAPH.scenarios(classed),
    conda:
        CONDA
    threads: GRAPH.threads
    resources:
        **light(),
    params:
        digest=GRAPH.digest("classifier"),
    shell:
        "python -m pdmd classifier --config {input.config:q} --digest {params.digest}"


rule judge:
    """Train the classifier that scores pictures and clips with prompts, or take the kept one."""
    input:
        GRAPH.fitted("classifier", outputs.judge_reads),
        config=GRAPH.config("classifier"),
    output:
        GRAPH.data(*outputs.JUDGE),
    benchmark:
        f"{RESULTS}/{{scenario}}/data/judge.benchmark.tsv"
    wildcard_constraints:
        scenario=GRAPH.scenarios(with_prompts),
    priority: FIRST
    conda:
        CONDA
    threads: GRAPH.threads
    resources:
        **light(),
    params:
        digest=GRAPH.digest("classifier"),
    shell:
        "python -m pdmd judge --config {input.config:q} --digest {params.digest}"


rule clip:
    """Train the small CLIP that scores alignment, or take the kept one."""
    input:
        GRAPH.kept_clip,
    output:
        weights=f"{RESULTS}/clip/small_clip.pt",
        scores=f"{RESULTS}/clip/small_clip.json",
        record=f"{RESULTS}/clip/provenance.json",
    benchmark:
        f"{RESULTS}/clip/benchmark.tsv"
    priority: FIRST
    conda:
        CONDA
    resources:
        **light(),
    params:
        updates=experiment.settings["clip"]["updates"],
        kept=f"--kept {GRAPH.kept_clip[0]}" if GRAPH.kept_clip else "",
    shell:
        "python -m pdmd clip --updates {params.updates} --output {output.weights:q} {params.kept}"
