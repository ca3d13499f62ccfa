# Tables and figures of record; the report shows them with captions.
from pdmd.config.plan import settings_file
from pdmd.report.worded import caption_file


def in_report(path, scenario):
    """CSV tables and PNG figures are shown; their twins are not."""
    if not path.endswith((".csv", ".png")):
        return path
    name, what = Path(path).stem, "Tables" if path.endswith(".csv") else "Figures"
    of = experiment.scenario(scenario)
    caption = f"../workflow/report/{caption_file(name, of['data']['kind'])}"
    return report(
        path, caption=caption, category=of["title"], subcategory=what, labels={"what": name}
    )


for scenario in experiment.scenarios:

    rule:
        """Write a scenario's tables."""
        name:
            f"tables_{scenario}"
        input:
            GRAPH.table_inputs(scenario),
            configs=GRAPH.drawn_configs(scenario),
        output:
            [in_report(path, scenario) for path in GRAPH.tables(scenario)],
            record=f"{RESULTS}/{scenario}/tables/provenance.json",
        conda:
            CONDA
        resources:
            **light(),
        params:
            digest=GRAPH.drawn_digest(scenario),
            code=CODE["tables"],
        shell:
            "python -m pdmd tables --digest {params.digest} --configs {input.configs:q}"

    rule:
        """Draw a scenario's figures."""
        name:
            f"figures_{scenario}"
        input:
            GRAPH.figure_inputs(scenario),
            configs=GRAPH.drawn_configs(scenario),
        output:
            [in_report(path, scenario) for path in GRAPH.figures(scenario)],
            record=f"{RESULTS}/{scenario}/figures/provenance.json",
        conda:
            CONDA
        resources:
            **light(),
        params:
            digest=GRAPH.drawn_digest(scenario),
            code=CODE["figures"],
        shell:
            "python -m pdmd figures --digest {params.digest} --configs {input.configs:q}"


onsuccess:
    # Who asks for a part may lack some.
    if all(Path(path).exists() for path in [*GRAPH.reported(), *CLAIMED.files]):
        settings = settings_file()
        shell("python -m pdmd report --results {RESULTS:q} --settings {settings:q}")
