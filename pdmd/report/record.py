"""Keep finished runs' tables, figures and scores in docs/record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pdmd.errors import UserError
from pdmd.files.digests import OUTPUTS
from pdmd.files.storage import read_json, reading, replacing, sha256, write_json, writing
from pdmd.report.claims import RECORDED
from pdmd.report.reading import read_scores
from pdmd.report.worded import CAPTIONS, caption_file
from pdmd.scenarios.kind import kinds
from pdmd.stages.outputs import PROVENANCE

PAPER = "paper"  # the folder of its tables and figures
# Parts with figures.
DRAWN = {"", *(f"science/{name}" for name in ("mixture", "emoji", "emoji_more", "moving"))}


def keep_record(results: Path, docs: Path, captions: Path = CAPTIONS[-1]) -> None:
    """Copy tables, figures with their captions, and every seed's scores to docs/record.

    What of <results> itself and of the parts below <results>/science is not there stays as it was
    recorded, and so does everything if one file of the results is refused.

    Raises:
        UserError: the results were made from a dirty checkout, are damaged or are not there.
    """
    made: dict[str, object] = {}
    files: dict[Path, bytes] = {}
    for part in parts(results):
        of_figures = captions if part in DRAWN else None
        origins = _scenarios(results / part, docs / part, of_figures, files)
        origins |= _validations(results / part, docs / part, files)
        origins |= _paper(results / part / PAPER, docs / PAPER, files)
        made |= {str(Path(part, name)): origin for name, origin in origins.items()}
    if not made:
        raise UserError(f"{results}: no tables: expected a finished `make demo` or `make science`")
    path = docs / "provenance.json"
    known = read_json(path, dict) if path.exists() else {}
    _write(files)
    write_json(path, known | made)


def parts(results: Path) -> list[str]:
    """The folders that scenarios lie in: the results themselves, and those of science."""
    folders = sorted(path for path in (results / "science").glob("*") if path.is_dir())
    return ["", *(str(path.relative_to(results)) for path in folders)]


def _origin(provenance: Path) -> dict[str, object]:
    """What made some results. Raises UserError for a dirty checkout's."""
    source = read_json(provenance, dict, ("dirty",))
    if source["dirty"] is not False:
        raise UserError(f"{provenance}: dirty checkout: expected results of a clean commit")
    with reading(provenance, "a file of provenance"):
        return {key: source[key] for key in ("commit", "packages", "python")}


def _scenarios(
    results: Path, docs: Path, captions: Path | None, files: dict[Path, bytes]
) -> dict[str, object]:
    """Note in `files`, target -> content, every scenario's tables, scores, and perhaps figures.

    Args:
        captions: the folder of figures' captions; None leaves figures out.
    Returns:
        scenario -> what made them.
    """
    made: dict[str, object] = {}
    for folder in sorted(results.glob("*/tables")):
        scenario, provenance = folder.parent.name, folder / "provenance.json"
        made[scenario] = _origin(provenance)
        with reading(provenance, "the provenance of a scenario's tables"):
            kind = read_json(provenance)["config"]["data"]["kind"]
            brings = kinds()[kind]
            tables, drawn = brings.tables, list(brings.figures) if captions else []
        sources = [folder / f"{name}.csv" for name in tables]
        sources += [folder.parent / "figures" / f"{name}.png" for name in drawn]
        files |= {docs / scenario / source.name: _content(source) for source in sources}
        files[docs / scenario / RECORDED] = scores_of(folder.parent)
        if captions:
            files[docs / scenario / "figures.md"] = _captioned(
                scenario, kind, drawn, captions
            ).encode()
    return made


def _captioned(scenario: str, kind: str, figures: Sequence[str], captions: Path) -> str:
    """A page of a scenario's figures, each with its caption."""
    parts = [f"# Figures of `{scenario}`"]
    for name in figures:
        path = captions / caption_file(name, kind, [captions])
        with reading(path, "the caption of a figure"):
            text = path.read_text(encoding="utf-8").replace("``", "`").strip()
        parts.append(f"![{name}]({name}.png)\n\n{text}")
    return "\n\n".join(parts) + "\n"


def scores_of(scenario: Path) -> bytes:
    """A row a method and seed of a scenario, a column a metric, as CSV: what claims are decided by.

    Raises:
        UserError: a file of scores that the scenario's tables were made from is damaged or gone.
    """
    import pandas as pd

    source = scenario / "tables" / "provenance.json"
    made_from = read_json(source, dict, ("inputs_sha256",))["inputs_sha256"]
    with reading(source, "the provenance of a scenario's tables"):
        digests = {Path(name).parts[-3:]: str(digest) for name, digest in made_from.items()}
        named = {
            (method, int(seed.removeprefix("seed"))): digest
            for (method, seed, file), digest in digests.items()
            if file == "metrics.json" and seed.startswith("seed")
        }
    rows = []
    for (method, seed), digest in sorted(named.items()):
        path = scenario / method / f"seed{seed}" / "metrics.json"
        rows.append({"method": method, "seed": seed, **read_scores(path)})
        if (found := sha256(path)) != digest:
            raise UserError(f"{path}: sha256 {found}: expected {digest} by {source}")
    return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g").encode()


def _validations(results: Path, docs: Path, files: dict[Path, bytes]) -> dict[str, object]:
    """Note the tables of metrics under known damage; returns what made them."""
    made: dict[str, object] = {}
    for table in sorted(results.glob("metrics_validation/*.csv")):
        made[f"metrics_validation/{table.stem}"] = _origin(table.with_suffix(".json"))
        files[docs / "metrics_validation" / table.name] = _content(table)
    return made


def _paper(results: Path, docs: Path, files: dict[Path, bytes]) -> dict[str, object]:
    """Note figures of the paper, whose tables are made of the record; returns what made them."""
    made: dict[str, object] = {}
    for record in sorted(results.glob(f"*/{PROVENANCE}")):
        made[f"{PAPER}/{record.parent.name}"] = _origin(record)
        with reading(record, "the provenance of the paper's tables and figures"):
            names = list(read_json(record, dict)[OUTPUTS])
        for name in [name for name in names if name.endswith(".png")]:
            files[docs / record.parent.name / name] = _content(record.with_name(name))
    return made


def _content(source: Path) -> bytes:
    with reading(source, "a file of finished results"):
        return source.read_bytes()


def _write(files: Mapping[Path, bytes]) -> None:
    """Write all files whole; of their scenarios drop what was recorded before."""
    for target, content in files.items():
        with replacing(target) as beside:
            beside.write_bytes(content)
    for folder in {target.parent for target in files if target.name == RECORDED}:
        for path in {one for one in folder.iterdir() if one.is_file()} - files.keys():
            with writing(path):
                path.unlink()
