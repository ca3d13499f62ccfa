# Tables and figures of record; the report shows them with captions.
from pdmd.catalogue import FIGURES, TABLES


def kind_of(scenario):
    """What a scenario is about: atoms, grid or digits."""
    return experiment.scenario(scenario)["data"]["kind"]


def table_paths(scenario):
    """Every table of a scenario, CSV first."""
    folder = f"{RESULTS}/{scenario}/tables"
    return [
        f"{folder}/{name}.{end}"
        for name in TABLES[kind_of(scenario)]
        for end in ("csv", "md", "tex")
    ]


def figure_paths(scenario):
    """Every figure of a scenario, PNG and PDF."""
    folder = f"{RESULTS}/{scenario}/figures"
    return [
        f"{folder}/{name}.{end}" for name in FIGURES[kind_of(scenario)] for end in ("png", "pdf")
    ]


def scenario_targets(scenario):
    """Everything a person asks of a scenario."""
    tried = scenario in config["validate"]
    validation = [f"{RESULTS}/metrics_validation/{scenario}.csv"] if tried else []
    records = [f"{RESULTS}/{scenario}/{kind}/provenance.json" for kind in ("tables", "figures")]
    return table_paths(scenario) + figure_paths(scenario) + records + scores(scenario) + validation


def scores(scenario):
    """What scoring writes of every method: asked for, so that a lost file is made again."""
    folders = {
        m: expand(per_seed(scenario, [""]), method=m) for m in experiment.method_names(scenario)
    }
    return [
        f"{folder}{name}"
        for method, seeds in folders.items()
        for folder in seeds
        for name in outputs.scored(experiment.runs[scenario, method])
    ]


def table_parts(scenario):
    """What tables and figures read of the configuration, a part a method."""
    names = [f"{method}/config/table.json" for method in experiment.method_names(scenario)]
    return [CONFIGS[scenario][name] for name in names]


def table_configs(scenario):
    """Their files."""
    return [ancient(str(part.path)) for part in table_parts(scenario)]


def table_digest(scenario):
    """The digest of their contents."""
    return fingerprint([part.content for part in table_parts(scenario)])


def table_inputs(scenario):
    """The results that tables are made from."""
    runs = [part.content for part in table_parts(scenario)]
    return [str(path) for run in runs for path in outputs.table_reads(run)]


def figure_inputs(scenario):
    """The results that figures are drawn from."""
    runs = [part.content for part in table_parts(scenario)]
    paths = [*outputs.figure_data(runs[0]), *(p for run in runs for p in outputs.figure_reads(run))]
    return list(map(str, paths))


def reported():
    """What a report of all scenarios shows."""
    every = [path for s in experiment.scenarios for path in table_paths(s) + figure_paths(s)]
    return [path for path in every if path.endswith((".csv", ".png"))]


def in_report(path, scenario):
    """CSV tables and PNG figures are shown; their twins are not."""
    if not path.endswith((".csv", ".png")):
        return path
    name, kind = Path(path).stem, "Tables" if path.endswith(".csv") else "Figures"
    caption = f"../workflow/report/{name}.rst"
    title = experiment.scenario(scenario)["title"]
    return report(path, caption=caption, category=title, subcategory=kind, labels={"what": name})


for _scenario in experiment.scenarios:

    rule:
        name:
            f"tables_{_scenario}"
        input:
            table_inputs(_scenario),
            configs=table_configs(_scenario),
        output:
            [in_report(path, _scenario) for path in table_paths(_scenario)],
            record=f"{RESULTS}/{_scenario}/tables/provenance.json",
        resources:
            **light(),
        params:
            digest=table_digest(_scenario),
            code=CODE["tables"],
        shell:
            "python -m pdmd tables --digest {params.digest} --configs {input.configs:q}"

    rule:
        name:
            f"figures_{_scenario}"
        input:
            figure_inputs(_scenario),
            configs=table_configs(_scenario),
        output:
            [in_report(path, _scenario) for path in figure_paths(_scenario)],
            record=f"{RESULTS}/{_scenario}/figures/provenance.json",
        resources:
            **light(),
        params:
            digest=table_digest(_scenario),
            code=CODE["figures"],
        shell:
            "python -m pdmd figures --digest {params.digest} --configs {input.configs:q}"
