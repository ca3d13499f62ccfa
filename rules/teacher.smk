# The network that students and fake scores start from; where the teacher is fitted, it is this.


def latents(scenario):
    """The precomputed latents, for scenarios whose data are not drawn on the spot."""
    kind, folder = experiment.scenario(scenario)["data"]["kind"], f"{RESULTS}/{scenario}/data"
    names = ["train", "heldout"] if kind in LATENT else []
    names += ["prompts"] if kind in PROMPTED else []
    return [f"{folder}/{name}.safetensors" for name in names]


def starts(scenario):
    """Weights that a fit takes or starts from, kept in the repository."""
    fit = experiment.scenario(scenario)["fit"]
    return [fit[name] for name in ("kept", "start_from") if fit.get(name)]


rule fit_base:
    input:
        lambda w: latents(w.scenario) + starts(w.scenario),
        config=shared("base"),
    output:
        expand(
            f"{RESULTS}/{{{{scenario}}}}/base/{{name}}",
            name=["model.safetensors", "metrics.json", "stats.jsonl", "snapshots.safetensors"],
        ),
    benchmark:
        f"{RESULTS}/{{scenario}}/base/benchmark.tsv"
    priority: FIRST
    threads: lambda w: threads_of(w.scenario)
    resources:
        **REQUESTS.base(),
    params:
        digest=digest("base"),
    shell:
        "python -m pdmd {resources.launch}fit --config {input.config}"
