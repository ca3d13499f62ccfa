# The registry of claims, decided by these results alone; `make claims` decides all of it by all results.
if CLAIMED.claims:

    rule claims:
        """Decide the claims that are made of these results."""
        input:
            scores=CLAIMED.scores,
            claims=ancient(str(HOME / "config" / "claims.yaml")),
        output:
            report(
                f"{RESULTS}/claims.csv",
                caption="../workflow/report/claims.rst",
                category="Claims",
                labels={"what": "claims"},
            ),
            [f"{RESULTS}/claims.{end}" for end in ("md", "tex")],
            record=f"{RESULTS}/claims.json",
        conda:
            CONDA
        resources:
            **light(),
        params:
            ids=CLAIMED.ids,
            digest=CLAIMED.digest,
            table=lambda _, output: str(Path(output.record).with_suffix("")),
            code=CODE["claims"],
        shell:
            "python -m pdmd claims --claims {input.claims:q} --only {params.ids:q}"
            " --digest {params.digest} --scores {input.scores:q} --output {params.table:q}"
