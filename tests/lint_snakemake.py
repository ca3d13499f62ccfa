"""Run Snakemake's linter and fail on each finding that lint_snakemake.yaml does not explain.

Snakemake 9.27 takes `--lint json` but prints text all the same, hence its Python interface.
"""

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import yaml
from snakemake.api import ResourceSettings, SnakemakeApi

ALLOWED = Path(__file__).with_name("lint_snakemake.yaml")


def lint(snakefile: Path) -> list[tuple[str, str]]:
    """Snakemake's findings as pairs of place and title."""
    printed = io.StringIO()
    with SnakemakeApi() as api, redirect_stdout(printed):
        api.workflow(resource_settings=ResourceSettings(), snakefile=snakefile).lint(json=True)
    report = json.loads(printed.getvalue())
    return [
        (place(item["for"]), lint["title"])
        for item in report["snakefiles"] + report["rules"]
        for lint in item["lints"]
    ]


def place(item: dict) -> str:
    """Where a finding is: file, then line and rule if it concerns one."""
    if "rule" in item:
        return f"{item['snakefile']}:{item['line']} ({item['rule']})"
    return item["snakefile"]


def complaints(findings: list[tuple[str, str]], allowed: dict[str, str]) -> list[str]:
    """One line for each finding without a reason, and for each reason without a finding."""
    found = {title for _, title in findings}
    return [f"{where}: {title}" for where, title in findings if title not in allowed] + [
        f"{ALLOWED.name}: nothing to explain any more: {title}" for title in allowed.keys() - found
    ]


def main(snakefile: Path) -> int:
    findings = lint(snakefile)
    allowed = {entry["title"]: entry["reason"] for entry in yaml.safe_load(ALLOWED.read_text())}
    lines = complaints(findings, allowed)
    print("\n".join(lines) or f"snakemake --lint: all {len(findings)} findings are explained.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "Snakefile")))
