"""The folder that jobs are run from is for its owner alone."""

import os
import stat

import pytest

from snakemake_executor_plugin_submitit import ExecutorSettings
from snakemake_executor_plugin_submitit.notes import Notes, private_folder
from snakemake_executor_plugin_submitit.settings import LEAST, check_settings


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """Set it for a test."""
    former = os.umask(0o022)
    yield os.umask
    os.umask(former)


@pytest.mark.parametrize("bits", [0o000, 0o002, 0o022, 0o077, 0o277])
def test_it_is_closed_whatever_the_umask(tmp_path, umask, bits):
    umask(bits)
    private_folder(tmp_path / "folder")
    Notes(tmp_path / "folder" / "running")
    assert mode(tmp_path / "folder") == mode(tmp_path / "folder" / "running") == 0o700


@pytest.mark.parametrize(("bits", "told"), [(0o777, True), (0o770, True), (0o755, False)])
def test_one_s_own_that_is_open_is_closed(tmp_path, bits, told, caplog):
    tmp_path.chmod(bits)
    private_folder(tmp_path)
    assert mode(tmp_path) == 0o700
    assert ("others could write here until now" in caplog.text) == told


def test_what_is_no_folder_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("file", "loop", "file/below"):
        with pytest.raises(ValueError, match="expected a folder for you alone") as caught:
            private_folder(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
def test_another_user_s_is_refused(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 12345, 12345)
    with pytest.raises(ValueError, match="of user 12345: expected a folder of your own"):
        private_folder(theirs)
    (tmp_path / "link").symlink_to(theirs)
    with pytest.raises(ValueError, match="of user 12345"):
        private_folder(tmp_path / "link")
    os.chown(theirs, os.geteuid(), 0)
    private_folder(tmp_path / "link")  # the control


@pytest.mark.parametrize("name", LEAST)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "x", None])
def test_a_setting_that_makes_no_sense_is_named(name, value):
    check_settings(ExecutorSettings())
    with pytest.raises(ValueError, match=f"^submitit-{name.replace('_', '-')}: .*: expected a"):
        check_settings(ExecutorSettings(**{name: value}))
