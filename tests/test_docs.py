"""README is short and its commands work; links lead somewhere; terms are defined once."""

import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
import yaml
from PIL import Image

from pdmd.cli import parser

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "config/README.md", ROOT / "workflow/executor/README.md"]
PAGES += [*sorted((ROOT / "docs").glob("*.md")), ROOT / "docs/record/README.md"]
MOST_WORDS = 900
BROUGHT = {"pictures", "prompts.jsonl"}  # by the user


def words(text):
    """What blanks separate, in tables and code too, without comments and rules of tables."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    return [word for word in text.split() if word.strip("|-")]


def test_readme_is_short():
    text = README.read_text()
    assert len(words(text)) <= MOST_WORDS
    assert len(words(text + " word" * MOST_WORDS)) > MOST_WORDS  # control


# ---- commands
def commands(text):
    """Lines of a page's indented code, without comments, but those of lists."""
    blocks = re.findall(r"(?<=\n\n)((?: {4}\S.*\n)+)", text)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def targets():
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def complaint(command):
    """What is wrong with a command; None of one that make, pdmd or files know."""
    program, *arguments = command
    if program == "make":
        return next((f"no target {name}" for name in arguments if name not in targets()), None)
    if program == "pdmd":
        try:
            parser().parse_args(arguments)
        except SystemExit:
            return "not understood"
    elif program not in ("snakemake", "python"):
        return f"no program {program}"
    paths = [word for word in arguments if "/" in word and not word.startswith("results/")]
    return next((f"no file {path}" for path in paths if not (ROOT / path).exists()), None)


COMMANDS = commands(README.read_text())


def test_readme_begins_with_two_commands():
    assert COMMANDS[:2] == [["make", "demo"], ["make", "test"]]
    programs = Counter(command[0] for command in COMMANDS)
    assert programs == {"make": 3, "snakemake": 5, "python": 1, "pdmd": 4}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_readmes_commands_exist(command):
    assert complaint(command) is None


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("make demos", "no target demos"),
        ("pdmd redraws mine.tar.gz", "not understood"),
        ("pdmd bundle --out", "not understood"),
        ("snakemake --configfile config/reel.yaml", "no file config/reel.yaml"),
        ("python -m pytest tests/gpus/ -rs", "no file tests/gpus/"),
        ("snakmake -c2", "no program snakmake"),
    ],
)
def test_control_a_command_that_does_not_exist_is_noticed(command, wrong, capsys):
    assert complaint(command.split()) == wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_and_stages_named_in_code_exist(page):
    code = " ".join(re.findall(r"`[^`]+`", page.read_text()))
    known = parser()._subparsers._group_actions[0].choices
    assert set(re.findall(r"`make ([a-z][a-z-]*)", code)) <= targets()
    assert set(re.findall(r"`pdmd ([a-z][a-z-]*)", code)) <= set(known)
    assert "redraws" not in known  # control


@pytest.mark.long
@pytest.mark.parametrize(
    "command", [one for one in COMMANDS if one[0] == "snakemake"], ids=" ".join
)
def test_snakemake_plans_what_readme_asks_for(command, checkout, snakemake):
    """With pictures and prompts as a user brings them; without them in one line, the control."""
    (checkout / "slurm").symlink_to("workflow/profiles/slurm")
    done = snakemake(checkout, "-n", *command[1:])
    if command[-1] in ("config/own.yaml", "config/real.yaml"):
        assert done.returncode != 0
        assert re.search(rf"pdmd: .*'({'|'.join(BROUGHT)})': expected", done.stderr)
        bring(checkout)
        done = snakemake(checkout, "-n", *command[1:])
    if command[-1] == "config/real.yaml":  # whose weights are not here either
        assert "rule fetch" in done.stdout + done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert re.search(r"^total\s+\d+", done.stdout + done.stderr, re.MULTILINE)


def bring(folder):
    (folder / "prompts.jsonl").write_text('{"prompt": "a fox runs"}\n' * 4)
    (folder / "pictures").mkdir()
    for number in range(64):
        path = folder / "pictures" / f"{number}.png"
        Image.new("RGB", (40, 40), (number, 0, 0)).save(path)
        path.with_suffix(".txt").write_text("a red square")


# ---- links
def slug(heading):
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


def dead(path, text, root=ROOT):
    """A page's relative links that lead nowhere, with or without an anchor."""
    found = []
    for target, anchor in re.findall(r"\]\(([^)\s#]*)(#[^)\s]*)?\)", text):
        if ":" in target:
            continue
        whole = path.parent / target if target else path
        headings = re.findall(r"^#+ (.*)", whole.read_text(), re.MULTILINE) if anchor else []
        if not whole.exists() or (anchor and anchor[1:] not in map(slug, headings)):
            found.append(target + anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert dead(page, page.read_text()) == []


def test_control_a_dead_link_is_noticed():
    text = "[a](docs/cluster.md#while-it-runs) [b](docs/clusters.md) [c](docs/cluster.md#whiles)"
    assert dead(README, text) == ["docs/clusters.md", "docs/cluster.md#whiles"]


# ---- the site
class Loader(yaml.SafeLoader):
    """YAML with MkDocs's Python tags, which are left out."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
SITE = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)


def test_the_site_has_every_page():
    named = {page for entry in SITE["nav"] for page in entry.values()}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in PAGES if "docs" in path.parts}
    assert named == pages | {"index.md", "configuration.md"}


def test_the_site_needs_no_other_host():
    """Its pages are looked at by docs/hooks.py; this is what would add fonts and scripts."""
    assert SITE["theme"]["font"] is False
    assert SITE["plugins"] == ["search"]
    assert not {"extra_css", "extra_javascript", "repo_url"} & set(SITE)


# ---- the glossary
GLOSSARY = (ROOT / "docs/glossary.md").read_text()


def terms(text):
    """Terms of the glossary: what is strong or code in the first cells of rows."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    return [name for cell in cells for name in re.findall(r"\*\*(.+?)\*\*|`(.+?)`", cell)]


def test_every_term_is_defined_once():
    counted = Counter(map("".join, terms(GLOSSARY)))
    assert [name for name, times in counted.items() if times > 1] == []
    assert {"SGTS", "exit", "bank", "density", "phase", "expert", "fake score"} <= set(counted)
    assert {"re-noising", "snapshot", "frontier", "KVD", "TV", "inliers"} <= set(counted)
    twice = Counter(map("".join, terms(GLOSSARY + "\n| **exit** | again |")))
    assert twice["exit"] == 2  # control


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "workflow" not in page.parts], ids=lambda page: page.stem
)
def test_every_page_leads_to_the_glossary(page):
    assert page.name == "glossary.md" or "glossary.md)" in page.read_text()


def test_columns_and_methods_of_results_are_in_the_glossary():
    heads = re.findall(r"^\| method .*", (ROOT / "docs/results.md").read_text(), re.MULTILINE)
    columns = {cell.strip() for head in heads for cell in head.split("|")[2:-1]}
    assert len(columns) > 8  # control
    assert columns - {"n", *map("".join, terms(GLOSSARY))} == set()
