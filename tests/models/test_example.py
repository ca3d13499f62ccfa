"""The example of an export runs as it stands, and wires what our own loader wires."""

import runpy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from exports import CUTS, NAMES, bare, frame, off, own, theirs, trained, without, write_bases
from PIL import Image

from pdmd.models.export import write_export
from pdmd.models.families import FAMILIES
from pdmd.models.load_export import load_export
from pdmd.models.switch import attach_phase_switch


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return write_bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.parametrize("scale", [1, 1000])  # of Qwen's pipeline, and of Wan's
def test_the_switch_goes_by_the_noise_level_alone(scale):
    class Transformer(torch.nn.Module):
        def set_adapter(self, name):
            self.name = name

        def forward(self, timestep):
            return self.name

    net, adapters = Transformer(), [("first", 0.9), ("second", 0.7), ("third", 0.0)]
    handle = attach_phase_switch(net, adapters)
    levels = [1.0, 0.94, 0.83, 0.63, 1.0, 0.2]
    wanted = ["first", "first", "second", "third", "first", "third"]
    found = [net(timestep=torch.tensor([scale * level])) for level in levels]
    assert found == wanted
    handle.remove()
    assert net(timestep=torch.tensor([scale * 1.0])) == "third"  # control


def example_of(name, bases, tmp_path, monkeypatch, cuts, boundary=None, **changes):
    """A student, and the variables of its example when it has run."""
    student, _ = trained(name, bases / name, cuts, boundary)
    student = replace(student, **changes)
    names = write_export(student, tmp_path / "export", "# card\n")
    assert "example.py" in names
    frame().save(tmp_path / "first.png")
    command = [str(bases / name), "a cat", str(tmp_path / "first.png")]
    monkeypatch.setattr(sys, "argv", ["example.py", *command])
    monkeypatch.syspath_prepend(tmp_path / "export")
    monkeypatch.delitem(sys.modules, "switch", raising=False)
    return student, runpy.run_path(str(tmp_path / "export/example.py"))


@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_examples_pipeline_draws_what_ours_does(name, cuts, bases, tmp_path, monkeypatch):
    student, made = example_of(name, bases, tmp_path, monkeypatch, cuts)
    pipeline, values = load_export(tmp_path / "export", bases / name)
    for one in (made["pipe"], pipeline):
        own(*(getattr(one, part) for part in FAMILIES[name].transformers))
    x = theirs(pipeline, values, student)
    assert torch.equal(theirs(made["pipe"], values, student), x)
    assert made["SIGMAS"] == values["sigmas"]
    plain = without(bare(name, bases), tmp_path / "export", values, student)
    assert off(plain, x) > 1e-2  # control


def test_the_examples_boundary_is_the_students(bases, tmp_path, monkeypatch):
    name, boundary = "wan2.2-t2v-a14b", 0.8
    _, made = example_of(name, bases, tmp_path, monkeypatch, "phased4", boundary)
    assert made["pipe"].config.boundary_ratio == boundary
    assert bare(name, bases).config.boundary_ratio == 0.875  # control: the base's own


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs_as_it_stands(name, bases, tmp_path):
    student, _ = trained(name, bases / name, "phased2")
    write_export(student, tmp_path / "export", "# card\n")
    frame().save(tmp_path / "first.png")
    command = [sys.executable, str(tmp_path / "export/example.py"), str(bases / name), "a cat"]
    subprocess.run([*command, str(tmp_path / "first.png")], check=True, cwd=tmp_path)
    made = tmp_path / "export" / ("sample.png" if name == "qwen-image" else "sample.mp4")
    assert made.stat().st_size > 500
    text = (tmp_path / "export/README.md").read_text()
    assert (tmp_path / "export/example.py").read_text() in text
    assert text.startswith("# card\n")


def test_the_example_of_one_frame_saves_a_picture(bases, tmp_path, monkeypatch):
    size = {"size": (1, 32, 48)}
    example_of("wan2.1-t2v-1.3b", bases, tmp_path, monkeypatch, "dmd2", **size)
    assert Image.open(tmp_path / "export/sample.png").size == (48, 32)
