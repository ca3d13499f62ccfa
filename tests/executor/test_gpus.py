"""Which GPUs there are to hand out."""

import os

import pytest

from snakemake_executor_plugin_submitit.gpus import visible_gpus

A, B = "GPU-8f2a11c0-5c1f-4a0e", "GPU-77e3d2b4-0000-1111"
M, N = "MIG-8f2a11c0-5c1f", "MIG-GPU-8f2a11c0/1/0"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("0", ("0",)),
        ("2,5", ("2", "5")),
        (" 2, 5 ", ("2", "5")),
        ("03", ("3",)),
        ("", ()),
        (" ", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0,1,-1,2", ("0", "1")),
        ("-1,0", ()),
        (f"{A},{B}", (A, B)),
        ("GPU-8f,GPU-77", ("GPU-8f", "GPU-77")),
        (f"{M},{N}", (M, N)),
        (f"{A},-1", (A,)),
    ],
)
def test_gpus_are_those_that_cuda_would_see(monkeypatch, text, names):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
    assert visible_gpus(None).names == names
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert visible_gpus(text).names == names, "the setting says the same, and goes before"
    assert visible_gpus(None).names == ("7",)


def test_a_number_is_a_setting_too():
    assert visible_gpus(3).names == ("3",)


WRONG = ["0,0", "1,01", "0-3", "all", "0,,1", "0,", "-2", "1.5", "a,b", "99999", "\u0663", "0\n1"]
WRONG += [f"0,{A}", f"{A},{A}", f"{A},GPU-8f2a", "GPU-", "GPU-a b", f"{A};{B}", "x" * 1000]


@pytest.mark.parametrize("text", WRONG)
def test_a_list_that_names_no_gpus_or_one_twice_is_refused_in_one_line(text):
    with pytest.raises(ValueError, match=r"^submitit-gpus: .*: expected indices") as caught:
        visible_gpus(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


CARDS = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-0)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb-1)
"""
SLICES = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaaa-0)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccc-0)
  MIG 3g.20gb     Device  1: (UUID: MIG-cccc-1)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb-1)
"""


@pytest.mark.parametrize(
    ("said", "status", "names"),
    [
        (CARDS, 0, ("0", "1")),
        (SLICES, 0, ("MIG-cccc-0", "MIG-cccc-1", "GPU-bbbb-1")),
        ("No devices found", 0, ()),
        ("NVIDIA-SMI has failed", 9, ()),
        ("", 0, ()),
    ],
)
def test_without_a_list_nvidia_smi_is_asked(tmp_path, monkeypatch, said, status, names):
    script = f"#!/bin/sh\ncat <<'E'\n{said}\nE\nexit {status}\n"
    (tmp_path / "nvidia-smi").write_text(script)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(None).names == names


def test_without_nvidia_smi_there_are_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(None).names == ()
