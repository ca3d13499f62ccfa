"""The layers of docs/architecture.md are those of the imports."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pdmd"


def layers(text):
    """Patterns of modules, a list a layer, from the last table of the document."""
    table = text.partition("\n## Layers\n")[2].splitlines()
    rows = [line for line in table if re.match(r"\| .* \| `", line)]
    return [re.findall(r"`([\w.*]+)`", row.split("|")[2]) for row in rows]


LAYERS = layers((ROOT / "docs" / "architecture.md").read_text())


def layer_of(module):
    """The layer of a module: of its own name before that of its package. Fails for none."""
    for prefix in (False, True):
        for number, patterns in enumerate(LAYERS):
            for pattern in patterns:
                whole = pattern.replace(".", r"\.").replace("*", r"\w+")
                if re.fullmatch(whole + (r"\..*" if prefix else ""), module):
                    return number
    raise AssertionError(f"pdmd.{module} stands in no layer")


def module_of(path, root=PACKAGE):
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(source, root=PACKAGE):
    """(module of pdmd, whether it is imported inside a function) of a source."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pdmd"):
            for alias in node.names:
                full = f"{node.module}.{alias.name}".partition(".")[2]
                file = root / full.replace(".", "/")
                module = full if file.is_dir() or file.with_suffix(".py").is_file() else None
                yield module or node.module.partition(".")[2], node.col_offset > 0


def upward(module, source):
    """What a module imports from a layer below its own row."""
    room = re.fullmatch(r"scenarios\.(\w+\.)?kind", module)
    return [
        name
        for name, lazy in imports(source)
        if name and layer_of(name) > layer_of(module) and not (room and lazy)
    ]


FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or path.stem != "__init__"
]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_up_the_table_alone(path):
    assert upward(module_of(path), path.read_text()) == []


def test_an_import_from_below_is_seen():
    """The control."""
    text = "from pdmd.stages import outputs\n"
    assert upward("models.qwen", text) == ["stages.outputs"]
    assert upward("models.qwen", "def f():\n    from pdmd.cli import main\n") == ["cli"]
    assert upward("scenarios.emoji.kind", "def f():\n    from pdmd.cli import main\n") == []
    assert upward("scenarios.emoji.kind", text) == ["stages.outputs"]


def test_every_layer_has_modules():
    present = {layer_of(module_of(path)) for path in FILES}
    assert present == set(range(len(LAYERS)))


ROOMS = {path.parent.name for path in PACKAGE.glob("scenarios/*/kind.py")}
SPOKEN = {"pdmd/jobs/demo.py", "pdmd/report/record.py"}  # of what the demo and README show


@pytest.mark.parametrize("path", [p for p in FILES if "scenarios" not in p.parts], ids=module_of)
def test_generic_code_names_no_scenario(path):
    """No literal that is a kind's name, and no import of a room."""
    if str(path.relative_to(ROOT)) in SPOKEN:
        return
    tree = ast.parse(path.read_text())
    named = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)} & ROOMS
    rooms = [
        name
        for name, _ in imports(path.read_text())
        if name.split(".")[1:2] and name.split(".")[1] in ROOMS
    ]
    assert (named, rooms) == (set(), [])


def test_a_named_scenario_is_seen():
    """The control."""
    tree = ast.parse('if kind == "emoji": pass')
    assert {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)} & ROOMS == {"emoji"}
