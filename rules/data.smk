# Pictures to whitened latents, and the classifier that scores pictures.


rule encode:
    input:
        config=shared("data"),
    output:
        expand(
            f"{RESULTS}/{{{{scenario}}}}/data/{{name}}",
            name=["train.safetensors", "heldout.safetensors", "codec.safetensors", "codec.json"],
        ),
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("data"),
    shell:
        "python -m pdmd encode --config {input.config}"


rule classifier:
    input:
        config=shared("classifier"),
        pictures=expand(
            f"{RESULTS}/{{{{scenario}}}}/data/{{name}}.safetensors", name=["train", "heldout"]
        ),
    output:
        f"{RESULTS}/{{scenario}}/data/classifier.safetensors",
        f"{RESULTS}/{{scenario}}/data/classifier.json",
    benchmark:
        f"{RESULTS}/{{scenario}}/data/classifier.benchmark.tsv"
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("classifier"),
    shell:
        "python -m pdmd classifier --config {input.config}"
