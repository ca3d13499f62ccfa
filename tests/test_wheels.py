"""What pip installs: two distributions that share no file, and work outside of a checkout."""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = Path("workflow/executor")
TREE = ("pyproject.toml", "README.md", "LICENSE", "Makefile", "Snakefile")
FOLDERS = ("pdmd", "rules", "workflow", "config", "envs", "examples")
LEFT = (".venv/pyvenv.cfg", "results/claims.csv")  # of a checkout, and of nobody else
KNOWN = """
import json
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
print(json.dumps([sorted(one().plugins) for one in (ExecutorPluginRegistry, LoggerPluginRegistry)]))
"""


def run(*command, cwd):
    """Run a command, with no checkout on its path; the finished process."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )


def build(folder, into, *targets):
    """Build a folder's distributions with hatchling; the files that were made."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(into)]
    for target in targets:
        command += ["-t", target]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return into


def files_of(wheel):
    """The files that a wheel installs."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the repository."""
    folder = tmp_path_factory.mktemp("tree") / "pdmd"
    for name in FOLDERS:
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    for name in TREE:
        shutil.copy(ROOT / name, folder)
    for name in LEFT:
        (folder / name).parent.mkdir()
        (folder / name).write_text("of this machine")
    return folder


@pytest.fixture(scope="module")
def sdist(tree, tmp_path_factory):
    """The source distribution, unpacked."""
    made = tmp_path_factory.mktemp("sdist")
    (archive,) = build(tree, made, "sdist").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from 3.11.4 on
        opened.extractall(made, **safely)
    return made / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheels(sdist, tmp_path_factory):
    """The wheels of pdmd and of its executor plugin, both built from the source distribution."""
    made = tmp_path_factory.mktemp("wheels")
    (ours,) = build(sdist, made / "pdmd", "wheel").glob("*.whl")
    (plugin,) = build(sdist / PLUGIN, made / "plugin", "wheel").glob("*.whl")
    return ours, plugin


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """An environment with both wheels, above the libraries of this one: (Python, a folder)."""
    return environment(tmp_path_factory.mktemp("installed"), wheels)


def environment(folder, wheels):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    install = ["-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "-q"]
    subprocess.run([sys.executable, *install, *wheels], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    libraries = [one for one in sys.path if Path(one).name == "site-packages"]
    (site / "libraries.pth").write_text("\n".join(libraries))
    (folder / "elsewhere").mkdir()
    return python, folder / "elsewhere"


def test_both_wheels_install_no_file_twice(wheels):
    ours, plugin = map(files_of, wheels)
    assert not ours & plugin
    assert {name.split("/")[0] for name in ours if ".dist-info" not in name} == {
        "pdmd",
        "snakemake_logger_plugin_pdmd",
    }
    assert "snakemake_executor_plugin_submitit/executor.py" in plugin


def test_control_a_wheel_that_ships_the_plugin_too_is_noticed(tree, wheels, tmp_path):
    both = shutil.copytree(tree, tmp_path / "both")
    project = both / "pyproject.toml"
    text = project.read_text().replace('"workflow/logger", "w', '"workflow/executor", "w')
    text = text.replace('"workflow/logger" = ""', '"workflow/executor" = ""')
    assert text != project.read_text()
    project.write_text(text)
    (ours,) = build(both, tmp_path / "made", "wheel").glob("*.whl")
    assert "snakemake_executor_plugin_submitit/executor.py" in files_of(ours) & files_of(wheels[1])


@pytest.mark.parametrize(
    ("number", "packages"),
    [(0, ["pdmd", "snakemake_logger_plugin_pdmd"]), (1, ["snakemake_executor_plugin_submitit"])],
)
def test_each_wheel_has_its_licence_and_says_that_it_is_typed(wheels, number, packages):
    files = files_of(wheels[number])
    assert {f"{package}/py.typed" for package in packages} <= files
    (licence,) = [name for name in files if name.endswith("dist-info/licenses/LICENSE")]
    with zipfile.ZipFile(wheels[number]) as archive:
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_the_commands_work_outside_of_a_checkout(installed):
    python, elsewhere = installed
    where = run(python, "-c", "import pdmd; print(pdmd.__file__)", cwd=elsewhere)
    assert where.stdout.startswith(str(python.parents[1]))  # control: not of a checkout
    done = run(python.with_name("pdmd"), "--help", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "distill" in done.stdout
    demo = run(python.with_name("pdmd"), "demo", cwd=elsewhere)
    assert demo.returncode == 2
    assert "no Snakefile: expected a clone of pdmd's repository" in demo.stderr
    assert len(demo.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_stage_runs_on_its_config_outside_of_a_checkout(installed, tiny):
    python, elsewhere = installed
    config = tiny(elsewhere / "results", {"fit": {"updates": 4, "batch": 16}})["config/base.json"]
    (elsewhere / "base.json").write_text(json.dumps(config))
    done = run(python.with_name("pdmd"), "fit", "--config", "base.json", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    record = json.loads((elsewhere / "results/mixture2d/base/provenance.json").read_text())
    assert record["commit"] is None  # a package knows none
    (elsewhere / "base.json").write_text("{}")
    assert run(python.with_name("pdmd"), "fit", "--config", "base.json", cwd=elsewhere).returncode


def test_an_installed_report_has_its_captions(installed):
    python, elsewhere = installed
    ask = "from pdmd.report.worded import caption_of; print(len(caption_of({!r})))"
    lengths = [run(python, "-c", ask.format(name), cwd=elsewhere) for name in ("samples", "none")]
    assert int(lengths[0].stdout) > 20
    assert int(lengths[1].stdout) == 0  # control


def test_snakemake_finds_each_plugin_in_its_own_wheel(installed, wheels, tmp_path):
    python, elsewhere = installed
    executors, loggers = json.loads(run(python, "-c", KNOWN, cwd=elsewhere).stdout)
    assert "submitit" in executors
    assert "pdmd" in loggers
    alone, folder = environment(tmp_path, wheels[:1])
    executors, loggers = json.loads(run(alone, "-c", KNOWN, cwd=folder).stdout)
    assert "submitit" not in executors  # control
    assert "pdmd" in loggers


def test_the_source_distribution_is_a_checkout_without_results(sdist):
    for name in ("Snakefile", "workflow/Snakefile", "config/config.yaml", "workflow/report"):
        assert (sdist / name).exists()
    for name in LEFT:
        assert not (sdist / name).exists()
