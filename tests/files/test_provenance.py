import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pdmd.files import provenance
from pdmd.files.storage import read_json

NOTHING = (None, None)
Ask = Callable[[Path], tuple[str | None, bool | None]]


def git(folder: Path, *arguments: str) -> str:
    """git as a user of no name has it."""
    own = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
    return subprocess.run(
        command, cwd=folder, env=own, check=True, capture_output=True, text=True
    ).stdout.strip()


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def commit_all(folder: Path) -> str:
    """Make a folder a repository of all that it holds; its commit."""
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    return git(folder, "rev-parse", "HEAD")


def package(folder: Path) -> Path:
    """A folder with what the workflow is made of."""
    for name in ("pdmd/__init__.py", "rules/a.smk", "workflow/b.py", "config/c.yaml", "Snakefile"):
        write(folder / name)
    write(folder / "README.md")
    write(folder / ".gitignore", "/results/\n__pycache__/\n")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return package(tmp_path / "tree")


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """What the package would say of itself, were it in a folder."""

    def found(folder: Path) -> tuple[str | None, bool | None]:
        provenance.checkout.cache_clear()
        monkeypatch.setattr(provenance, "ROOT", folder)
        return provenance.checkout()

    yield found
    provenance.checkout.cache_clear()


# ---- what counts as changed


def test_a_clean_checkout_has_its_commit(tree: Path, ask: Ask) -> None:
    commit = commit_all(tree)
    assert ask(tree) == (commit, False)


@pytest.mark.parametrize("name", ["pdmd/__init__.py", "README.md", "config/c.yaml"])
def test_a_changed_file_is_dirty(tree: Path, ask: Ask, name: str) -> None:
    commit = commit_all(tree)
    write(tree / name, "changed")
    assert ask(tree) == (commit, True)
    write(tree / name)
    assert ask(tree) == (commit, False)  # control: as it was


@pytest.mark.parametrize(
    "name", ["pdmd/new.py", "pdmd/models/new.py", "rules/new.smk", "workflow/n", "config/n.yaml"]
)
def test_untracked_code_is_dirty(tree: Path, ask: Ask, name: str) -> None:
    commit = commit_all(tree)
    new = write(tree / name)
    assert ask(tree) == (commit, True)
    new.unlink()
    assert ask(tree) == (commit, False)  # control


def test_an_untracked_workflow_is_dirty(tree: Path, ask: Ask) -> None:
    (tree / "Snakefile").unlink()
    commit = commit_all(tree)
    write(tree / "Snakefile")
    assert ask(tree) == (commit, True)


@pytest.mark.parametrize("name", ["notes.txt", "results/a.json", "pdmd/__pycache__/a.pyc"])
def test_other_untracked_files_are_not(tree: Path, ask: Ask, name: str) -> None:
    commit = commit_all(tree)
    write(tree / name)
    assert ask(tree) == (commit, False)


# ---- whose repository it is


def test_a_repository_around_a_copy_is_not_its_own(tmp_path: Path, ask: Ask) -> None:
    outer = tmp_path / "outer"
    write(outer / "paper.tex")
    commit = commit_all(outer)
    beside = package(outer / "code")
    assert ask(beside) == NOTHING
    assert ask(package(outer)) == NOTHING  # at its top, untracked
    commit_all(outer)
    assert ask(beside) == NOTHING  # tracked, in a folder of it
    found = ask(outer)  # control: tracked at its top, it is its own
    assert found == (git(outer, "rev-parse", "HEAD"), False)
    assert found[0] != commit


def test_a_copy_without_a_repository_has_none(tree: Path, ask: Ask) -> None:
    assert ask(tree) == NOTHING


def test_a_repository_without_commits_has_none(tree: Path, ask: Ask) -> None:
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    assert ask(tree)[0] is None


def test_a_worktree_is_a_checkout(tree: Path, tmp_path: Path, ask: Ask) -> None:
    commit = commit_all(tree)
    git(tree, "worktree", "add", "-q", str(tmp_path / "other"))
    assert ask(tmp_path / "other") == (commit, False)


def test_the_environment_names_no_other_repository(
    tree: Path, tmp_path: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a git hook sets it, or `git rebase --exec`."""
    commit, other = commit_all(tree), package(tmp_path / "other")
    write(other / "more")
    foreign = commit_all(other)
    copy = package(tmp_path / "copy")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tree))
    assert ask(tree) == (commit, False)
    assert ask(copy) == NOTHING
    plain = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, capture_output=True, text=True)
    assert plain.stdout.strip() == foreign != commit  # control: git itself obeys


# ---- a git that cannot say


def only_git(folder: Path, script: str | None, mode: int = 0o755) -> str:
    """A PATH with this git alone, or with none."""
    folder.mkdir()
    if script is not None:
        write(folder / "git", script).chmod(mode)
    return str(folder)


@pytest.mark.parametrize(
    ("script", "mode"),
    [
        (None, 0),
        ("#!/bin/sh\nexit 1\n", 0o755),
        ("#!/bin/sh\n/bin/sleep 60\n", 0o755),
        ("#!/bin/sh\nprintf '\\377\\376'\n", 0o755),
        ("#!/no/such/shell\n", 0o755),
        ("not a program", 0o755),
        ("#!/bin/sh\n", 0o644),
    ],
    ids=["none", "fails", "hangs", "garbage", "no shell", "no program", "not allowed"],
)
def test_without_git_a_file_is_made_all_the_same(
    tree: Path,
    tmp_path: Path,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    mode: int,
) -> None:
    commit = commit_all(tree)
    assert ask(tree)[0] == commit  # control: with git
    monkeypatch.setenv("PATH", only_git(tmp_path / "bin", script, mode))
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.3)
    assert ask(tree) == NOTHING
    provenance.record(tmp_path / "made.json", {}, [1], [], [])
    made = read_json(tmp_path / "made.json")
    assert (made["commit"], made["dirty"]) == NOTHING
    assert made["seeds"] == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_checkout_of_somebody_else_has_no_commit(tree: Path, ask: Ask) -> None:
    """git refuses it: dubious ownership."""
    commit = commit_all(tree)
    for path in (tree, tree / ".git"):
        shutil.chown(path, 65534, 65534)
    assert ask(tree) == NOTHING
    for path in (tree, tree / ".git"):
        shutil.chown(path, 0, 0)
    assert ask(tree) == (commit, False)  # control


def test_git_is_asked_once_a_process(tree: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(tree)
    monkeypatch.setattr(provenance, "_git", None)
    assert provenance.checkout() == found
    provenance.checkout.cache_clear()
    with pytest.raises(TypeError):  # control: asked again
        provenance.checkout()
