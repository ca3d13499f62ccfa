# Pictures and clips to latents, prompts to embeddings, and the classifiers that score samples.
from pdmd.catalogue import PROMPTED


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
        "python -m pdmd weights --output {output:q}"


rule encode:
    input:
        config=part("data"),
    output:
        data(*outputs.ENCODED),
    wildcard_constraints:
        scenario=scenarios_of(["digits"]),
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("data"),
    shell:
        "python -m pdmd encode --config {input.config:q} --digest {params.digest}"


rule render:
    input:
        config=part("data"),
    output:
        data(*outputs.RENDERED),
    wildcard_constraints:
        scenario=scenarios_of(PROMPTED),
    priority: FIRST
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("data"),
    shell:
        "python -m pdmd render --config {input.config:q} --digest {params.digest}"


rule embed:
    input:
        data("prompts.json"),
        f"{RESULTS}/weights.json",
        config=part("text"),
    output:
        data(*outputs.EMBEDDED),
    wildcard_constraints:
        scenario=scenarios_of(PROMPTED),
    priority: FIRST
    threads: lambda w: threads_of(w.scenario)
    resources:
        **light(),
    params:
        digest=digest("text"),
    shell:
        "python -m pdmd embed --config {input.config:q} --digest {params.digest}"


rule classifier:
    input:
        data("train.safetensors", "heldout.safetensors"),
        config=part("classifier"),
    output:
        data(*outputs.CLASSIFIER),
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
        "python -m pdmd classifier --config {input.config:q} --digest {params.digest}"


rule judge:
    input:
        data("pictures.safetensors", "prompts.json"),
        config=part("classifier"),
    output:
        data(*outputs.JUDGE),
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
        "python -m pdmd judge --config {input.config:q} --digest {params.digest}"


rule clip:
    output:
        weights=f"{RESULTS}/clip/small_clip.pt",
        scores=f"{RESULTS}/clip/small_clip.json",
        record=f"{RESULTS}/clip/provenance.json",
    benchmark:
        f"{RESULTS}/clip/benchmark.tsv"
    priority: FIRST
    resources:
        **light(),
    params:
        updates=experiment.settings["clip"]["updates"],
    shell:
        "python -m pdmd clip --updates {params.updates} --output {output.weights:q}"
