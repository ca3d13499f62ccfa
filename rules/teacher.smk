# The network that students and fake scores start from; where the teacher is fitted, it is this.


def latents(scenario):
    """The precomputed latents, for scenarios whose data are not drawn on the spot."""
    kind, folder = experiment.scenario(scenario)["data"]["kind"], f"{RESULTS}/{scenario}/data"
    names = ["train", "heldout"] if kind in LATENT else []
    names += ["prompts"] if kind in PROMPTED else []
    return [f"{folder}/{name}.safetensors" for name in names]


rule fit_base:
    input:
        lambda w: latents(w.scenario),
        config=shared("base"),
    output:
        expand(
            f"{RESULTS}/{{{{scenario}}}}/base/{{name}}",
            name=["model.safetensors", "metrics.json", "stats.jsonl", "snapshots.safetensors"],
        ),
    benchmark:
        f"{RESULTS}/{{scenario}}/base/benchmark.tsv"
    threads: lambda w: threads_of(w.scenario)
    resources:
        **REQUESTS.base(),
    params:
        digest=digest("base"),
    shell:
        "python -m pdmd {resources.launch}fit --config {input.config}"
