"""Tables and figures are made again when any code behind them changes."""

import ast

import pytest

from pdmd.files import code


def imported(path):
    """The files of this package that a source imports, by Python's own parser."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pdmd":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            file = code.ROOT.parent / (name.replace(".", "/") + ".py")
            if name.startswith("pdmd.") and file.is_file():
                found.add(file)
    return found


@pytest.mark.parametrize("path", sorted(code.ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_no_import_is_missed(path):
    assert set(code._imported(path.read_text(encoding="utf-8"))) == imported(path)


def test_control_an_import_on_the_next_line_and_in_brackets_is_seen():
    text = "from pdmd.files import provenance\nfrom pdmd.config.catalogue import A\n"
    text += "from pdmd.data import (\n  bank,\n)"
    found = {path.stem for path in code._imported(text)}
    assert found == {"provenance", "catalogue", "bank"}


@pytest.mark.parametrize("what", ["tables", "figures"])
def test_code_deep_below_counts(what, monkeypatch, tmp_path):
    copy = tmp_path / "pdmd"
    for path in code.ROOT.rglob("*.py"):
        target = copy / path.relative_to(code.ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    monkeypatch.setattr(code, "ROOT", copy)
    before = code.drawing_code(what)
    assert code.drawing_code(what) == before  # control
    for name in ("metrics/intervals.py", "files/storage.py"):
        path = copy / name
        path.write_bytes(path.read_bytes() + b"\n# changed\n")
        after = code.drawing_code(what)
        assert after != before
        before = after


def test_what_scores_in_a_room_counts():
    """A scenario's own metrics stand in its room; its figures score nothing."""
    scored = {str(path.relative_to(code.ROOT)) for path in code._files(code.SCORING)}
    rooms = {str(path.relative_to(code.ROOT)) for path in code.ROOT.glob("scenarios/*/metrics.py")}
    assert rooms <= scored
    assert len(rooms) > 2
    assert "scenarios/emoji/figures.py" not in scored  # control
