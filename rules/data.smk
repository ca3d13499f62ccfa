# Pictures and clips to latents, prompts to embeddings, and the classifiers that score samples.
from pdmd.catalogue import LATENT, PROMPTED

LATENT_FILES = ["train.safetensors", "heldout.safetensors", "codec.safetensors", "codec.json"]


def scenarios_of(kinds):
    """A wildcard constraint: the scenarios whose data are of some kinds."""
    names = [s for s in experiment.scenarios if experiment.scenario(s)["data"]["kind"] in kinds]
    return "|".join(names) or "(?!)"


def data(*names):
    """Files of a scenario's data folder, the scenario left open."""
    return [f"{RESULTS}/{{scenario}}/data/{name}" for name in names]


rule weights:
    output:
        f"{RESULTS}/weights.json",
    priority: FIRST
    resources:
        **light(),
    shell:
        "python -m pdmd weights --output {output}"


rule encode:
    input:
        config=shared("data"),
    output:
        data(*LATENT_FILES),
    wildcard_constraints:
        scenario=scenarios_of(["digits"]),
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("data"),
    shell:
        "python -m pdmd encode --config {input.config}"


rule render:
    input:
        config=shared("data"),
    output:
        data("pictures.safetensors", "prompts.json", *LATENT_FILES),
    wildcard_constraints:
        scenario=scenarios_of(PROMPTED),
    priority: FIRST
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("data"),
    shell:
        "python -m pdmd render --config {input.config}"


rule embed:
    input:
        data("prompts.json"),
        f"{RESULTS}/weights.json",
        config=shared("text"),
    output:
        data("prompts.safetensors"),
    wildcard_constraints:
        scenario=scenarios_of(PROMPTED),
    priority: FIRST
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("text"),
    shell:
        "python -m pdmd embed --config {input.config}"


rule classifier:
    input:
        data("train.safetensors", "heldout.safetensors"),
        config=shared("classifier"),
    output:
        data("classifier.safetensors", "classifier.json"),
    benchmark:
        f"{RESULTS}/{{scenario}}/data/classifier.benchmark.tsv"
    wildcard_constraints:
        scenario=scenarios_of(["digits"]),
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("classifier"),
    shell:
        "python -m pdmd classifier --config {input.config}"


rule judge:
    input:
        data("pictures.safetensors", "prompts.json"),
        config=shared("classifier"),
    output:
        data("judge.safetensors", "judge.json"),
    benchmark:
        f"{RESULTS}/{{scenario}}/data/judge.benchmark.tsv"
    wildcard_constraints:
        scenario=scenarios_of(PROMPTED),
    priority: FIRST
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("classifier"),
    shell:
        "python -m pdmd judge --config {input.config}"


rule clip:
    output:
        weights=f"{RESULTS}/clip/small_clip.pt",
        scores=f"{RESULTS}/clip/small_clip.json",
    benchmark:
        f"{RESULTS}/clip/benchmark.tsv"
    priority: FIRST
    resources:
        **light(),
    params:
        updates=config["clip"]["updates"],
    shell:
        "python -m pdmd clip --updates {params.updates} --output {output.weights}"
