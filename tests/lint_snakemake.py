"""Run Snakemake's linter and fail on each finding that lint_snakemake.yaml does not explain.

It reads the linter's text, because `snakemake --lint json` (9.27) prints text too.
"""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ALLOWED = Path(__file__).with_name("lint_snakemake.yaml")


def lint(snakefile: str) -> str:
    """What `snakemake --lint` prints about a workflow."""
    command = [sys.executable, "-m", "snakemake", "--lint", "--snakefile", snakefile]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode and not findings(run.stderr):
        sys.exit(f"snakemake --lint failed without a finding:\n{run.stdout}{run.stderr}")
    return run.stderr


def findings(report: str) -> list[tuple[str, str]]:
    """Pairs of place and title: blocks 'Lints for PLACE:' with items '    * TITLE:' in them."""
    found, place = [], ""
    for line in report.splitlines():
        if match := re.fullmatch(r"Lints for (.+):", line):
            place = match[1]
        elif match := re.fullmatch(r" {4}\* (.+):", line):
            found.append((place, match[1]))
    return found


def complaints(found: list[tuple[str, str]], allowed: dict[str, str]) -> list[str]:
    """One line for each finding without a reason, and for each reason without a finding."""
    unused = allowed.keys() - {title for _, title in found}
    return [f"{place}: {title}" for place, title in found if title not in allowed] + [
        f"{ALLOWED.name}: nothing left to explain: {title}" for title in sorted(unused)
    ]


def main(snakefile: str = "Snakefile") -> int:
    found = findings(lint(snakefile))
    allowed = {entry["title"]: entry["reason"] for entry in yaml.safe_load(ALLOWED.read_text())}
    lines = complaints(found, allowed)
    print("\n".join(lines) or f"snakemake --lint: all {len(found)} findings are explained.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
