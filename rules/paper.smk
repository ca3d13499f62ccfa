# The paper's tables and figures by number, config/paper.yaml: a rule a scale that these results give some of.
for scale in PAPER.plans:

    rule:
        """Make the paper's tables and figures of one scale."""
        name:
            f"paper_{scale}"
        input:
            PAPER.inputs(scale),
            configs=PAPER.configs(scale),
            listed=ancient(str(HOME / "config" / "paper.yaml")),
        output:
            PAPER.files(scale)[:-1],
            record=PAPER.files(scale)[-1],
        conda:
            CONDA
        resources:
            **light(),
        params:
            digest=PAPER.digest(scale),
            wanted=PAPER.wanted(scale),
            scale=scale,
            results=lambda _, output: str(Path(output.record).parents[2]),
            code=CODE["paper"],
        shell:
            "python -m pdmd paper --scale {params.scale} --listed {input.listed:q} --results {params.results:q}"
            " --digest {params.digest} --configs {input.configs:q}"
