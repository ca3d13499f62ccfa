"""What a command says and returns when the disk, a person or its own code ends it."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from test_loop import arguments, assert_same_outputs, newest, state_folder

from pdmd import cli
from pdmd.ending import INTERRUPTED, MISTAKE, UNREAD, conclude
from pdmd.errors import PeerLost, UserError
from pdmd.training.stop import STATUS, Stopped

SHORT = {"distill": {"updates": 120}, "save": {"checkpoint_every": 20}}
LONG = {"distill": {"updates": 1200}, "save": {"checkpoint_every": 50}}


def dies_of(error):
    """A command that dies of an error."""

    def run():
        raise error

    return run


def only_line(text):
    """The one line that a command said."""
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("pdmd: ")
    assert len(lines[0]) < 300
    return lines[0]


# ---- errors of every kind


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError("x: 3: expected 4"), MISTAKE, "pdmd: x: 3: expected 4"),
        (UserError("x: 3\n4: expected 4"), MISTAKE, "pdmd: x: 3 4: expected 4"),
        (Stopped("saved"), STATUS, "pdmd: saved"),
        (KeyboardInterrupt(), INTERRUPTED, "pdmd: stopped: "),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            MISTAKE,
            "/x: Permission denied",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), MISTAKE, "/x: No such file"),
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of"
                " 79.10 GiB of which 1.20 GiB is free. Of the allocated memory 70.00 GiB is"
                " allocated by PyTorch. If reserved but unallocated memory is large try setting"
            ),
            MISTAKE,
            "of which 1.20 GiB is free: expected what fits: `pdmd plan` names",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), MISTAKE, "No space left on device"),
    ],
)
def test_what_a_person_can_mend_is_one_line(capsys, error, status, words):
    assert conclude(dies_of(error)) == status
    assert words in only_line(capsys.readouterr().err)


@pytest.mark.parametrize("error", [ValueError("a fault"), ConnectionResetError(104, "reset")])
def test_a_fault_of_the_program_keeps_its_traceback(error):
    """The control."""
    with pytest.raises(type(error)):
        conclude(dies_of(error))


def test_a_command_that_ends_well_says_nothing(capsys):
    assert [conclude(lambda: None), conclude(lambda: 0), conclude(lambda: 7)] == [0, 0, 7]
    assert capsys.readouterr().err == ""


def turned_into(error):
    """A Ctrl-C that an extension module turns into another error."""

    def run():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        except KeyboardInterrupt:
            raise error from None

    return run


@pytest.mark.parametrize("error", [ImportError("broken"), SystemError("no exception set")])
def test_ctrl_c_is_ctrl_c_whatever_it_is_turned_into(capsys, error):
    before = signal.getsignal(signal.SIGINT)
    assert conclude(turned_into(error)) == INTERRUPTED
    only_line(capsys.readouterr().err)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(type(error)):  # control: nobody pressed it
        conclude(dies_of(error))


# ---- one process of several


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (UserError("x: 3: expected 4"), False),
        (PermissionError(errno.EACCES, "Permission denied", "x"), False),
        (KeyboardInterrupt(), False),
        (ValueError("a fault"), False),
        (PeerLost("rank 1"), True),
    ],
)
def test_a_process_of_several_leaves_its_word(monkeypatch, tmp_path, capsys, error, lost):
    monkeypatch.setenv("PDMD_AGENT", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "word"))
    assert conclude(dies_of(error)) != 0
    word = json.loads((tmp_path / "word").read_text())
    assert (str(error) or "stopped") in word["message"] or "x: Permission" in word["message"]
    assert word["lost"] is lost
    assert capsys.readouterr().err == ""


def test_a_word_that_finds_no_room_is_said(monkeypatch, capsys):
    monkeypatch.setenv("PDMD_AGENT", "1")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/dev/full")
    assert conclude(dies_of(UserError("x: 3: expected 4"))) == MISTAKE
    assert only_line(capsys.readouterr().err) == "pdmd: x: 3: expected 4"


# ---- the command itself


def pdmd(*command, **options):
    """`python -m pdmd` as a person runs it."""
    program = [sys.executable, "-m", "pdmd", *map(str, command)]
    return subprocess.Popen(program, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("buffered", ["", "1"])
def test_standard_output_that_is_full_is_named(tmp_path, buffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": buffered}
    with open("/dev/full", "w") as full:
        process = pdmd("status", "--results", tmp_path, stdout=full, env=environment)
    assert "standard output: No space left" in only_line(process.communicate()[1])
    assert process.returncode == MISTAKE


def test_a_reader_that_goes_away_is_no_mistake(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    process = pdmd("status", "--results", tmp_path, stdout=writing)
    os.close(writing)
    assert process.communicate()[1] == ""
    assert process.returncode == UNREAD


@pytest.mark.parametrize("module", ["yaml", "torch"])
@pytest.mark.parametrize("handled", ["raise", "raise ImportError('broken')", "pass"])
def test_ctrl_c_during_an_import_is_one_line(copied, tiny, tmp_path, module, handled):
    """yaml is imported with the command line, torch, which may ignore it, by the stage."""
    fake = tmp_path / "fake" / f"{module}.py"
    fake.parent.mkdir()
    body = "import os, signal, time\n"
    press = "os.kill(os.getpid(), signal.SIGINT); time.sleep(5)"
    handled = handled if module == "torch" else "raise"
    body += f"try:\n    {press}\nexcept KeyboardInterrupt:\n    {handled}\n"
    fake.write_text(body)
    path = f"{fake.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = arguments(copied, tiny, SHORT)
    if module == "yaml":
        command = ["resolve", "--root", str(Path(cli.__file__).parents[1])]
    process = pdmd(*command, env={**os.environ, "PYTHONPATH": path})
    assert "stopped" in only_line(process.communicate()[1])
    assert process.returncode == INTERRUPTED


def fork(command, prepare=lambda: None):
    """(status, stderr) of a command in a forked process, which needs no second import of torch."""
    sys.stdout.flush()
    with tempfile.TemporaryFile("w+") as said:
        child = os.fork()
        if child == 0:
            status = 99
            try:
                os.dup2(said.fileno(), 2)
                sys.stderr = os.fdopen(2, "w", buffering=1)
                prepare()
                status = cli.main(command)
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return status, said.read()


@pytest.fixture(scope="module")
def whole(chain, tmp_path_factory, tiny):
    """Results of the second phase that nothing disturbed."""
    results = Path(shutil.copytree(chain, tmp_path_factory.mktemp("whole") / "results"))
    assert fork(arguments(results, tiny, SHORT)) == (0, "")
    return results


@pytest.mark.parametrize("room", [1_000, 20_000])
def test_a_quota_is_one_line_and_the_rerun_ends_alike(copied, whole, tiny, room):
    command = arguments(copied, tiny, SHORT)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    status, said = fork(command, limit)
    assert "File too large: expected room" in only_line(said)
    assert status == MISTAKE
    assert fork(command)[0] == 0
    assert_same_outputs(whole, copied)


FULL = """
import json, os, shutil, subprocess, sys
import test_ending
from pathlib import Path
chain, results, out, *command = sys.argv[1:]
for room in (0, 60):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", results], check=True)
    shutil.copytree(chain, results, dirs_exist_ok=True)
    used = os.statvfs(results)
    used = (used.f_blocks - used.f_bfree) * used.f_bsize // 1024
    subprocess.run(["mount", "-o", f"remount,size={used + room}k", results], check=True)
    first = test_ending.fork(command)
    subprocess.run(["mount", "-o", "remount,size=64m", results], check=True)
    again = test_ending.fork(command)
    shutil.copytree(results, f"{out}/{room}")
    subprocess.run(["mount", "-o", "remount,ro", results], check=True)
    print(json.dumps([*first, *again, *test_ending.fork(command)]), flush=True)
    subprocess.run(["umount", results], check=True)
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_full_disk_is_one_line_and_the_rerun_ends_alike(chain, whole, tiny, tmp_path):
    """A file system of its own, smaller than what the job writes, then as large as it needs."""
    alone = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no file system of one's own without user namespaces")
    results, source = tmp_path / "results", tmp_path / "source"
    shutil.copytree(chain, results)
    command = arguments(results, tiny, SHORT)
    shutil.move(results, source)
    results.mkdir()
    path = os.pathsep.join(sys.path)  # with this module and those it imports
    command[2] = str(shutil.copy(source / "mixture2d/phased2/config/distill.json", tmp_path))
    done = subprocess.run(
        [*alone, sys.executable, "-c", FULL, source, results, tmp_path, *command],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert len(found) == 2, done.stderr
    for room, (full, said, again, _, read_only, complaint) in zip((0, 60), found, strict=True):
        assert "No space left on device: expected room" in only_line(said)
        assert (full, again, read_only) == (MISTAKE, 0, MISTAKE), said
        assert "Read-only file system: expected room, and the right" in only_line(complaint)
        assert_same_outputs(whole, tmp_path / str(room))


def as_nobody():
    """Give up root, whom no permission stops."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setuid(65534)


def test_a_folder_that_may_not_be_written_is_named(chain, tiny):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        results = Path(shutil.copytree(chain, Path(folder) / "results"))
        command = arguments(results, tiny, SHORT)
        for path in [results, *results.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        status, said = fork(command, as_nobody)
        assert "Permission denied: expected room, and the right" in only_line(said)
        assert str(results) in said
        assert status == MISTAKE
        next(results.rglob("model.safetensors")).chmod(0)
        status, said = fork(command, as_nobody)
        assert "base/model.safetensors: Permission denied" in only_line(said)
        for path in [results, *results.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.parametrize("name", ["expert.safetensors", "metrics.json", "config.json"])
def test_a_folder_in_the_place_of_an_output_is_named(copied, whole, tiny, name):
    command = arguments(copied, tiny, SHORT)
    place = copied / "mixture2d/phased2/seed1/phase2" / name
    place.mkdir()
    status, said = fork(command)
    assert f"{place}: Is a directory" in only_line(said)
    assert status == MISTAKE
    place.rmdir()
    assert fork(command)[0] == 0
    assert_same_outputs(whole, copied)


def test_a_file_in_the_place_of_a_folder_is_named(copied, tiny):
    command = arguments(copied, tiny, SHORT)
    place = copied / "mixture2d/phased2/seed2"
    shutil.rmtree(place)
    place.write_text("")
    status, said = fork(command)
    assert f"{place}" in only_line(said)
    assert status == MISTAKE


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_training_goes_on(copied, chain, tiny, tmp_path):
    """A real process, pressed while it trains; started again it ends in the same weights."""
    command = arguments(copied, tiny, LONG)
    process = pdmd(*command)
    while newest(state_folder(copied)) < "step-00000050":
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "stopped" in only_line(process.communicate()[1])
    assert process.returncode == INTERRUPTED
    before = newest(state_folder(copied))
    assert before  # a checkpoint is left
    assert fork(command)[0] == 0
    undisturbed = Path(shutil.copytree(chain, tmp_path / "undisturbed"))
    assert fork(arguments(undisturbed, tiny, LONG))[0] == 0
    assert_same_outputs(undisturbed, copied)


# ---- threads of libraries that are still at work at the end

BUSY = """
import atexit, sys, threading, time
import torch
from pdmd.leaving import leave
def work():
    x = torch.ones(400, 400)
    while True:
        x @ x
threading.Thread(target=work, daemon=True).start()
threading.Thread(target=lambda: (time.sleep(0.3), print("waited for"))).start()
atexit.register(print, "at exit")
time.sleep(0.1)
print("done", end=" ")
"""


@pytest.mark.parametrize("status", [0, 3])
def test_a_thread_that_is_still_at_work_ends_with_the_process(status):
    done = subprocess.run(
        [sys.executable, "-c", f"{BUSY}leave({status})"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (status, "done waited for\nat exit\n")
    assert done.stderr == ""


def test_such_a_thread_aborts_an_interpreter_that_is_taken_down():
    """The control."""
    done = subprocess.run([sys.executable, "-c", f"{BUSY}sys.exit(0)"], capture_output=True)
    assert done.returncode == -signal.SIGABRT
    assert b"terminate called without an active exception" in done.stderr


def test_a_command_leaves_no_interpreter_to_take_down(tmp_path):
    """Whatever torch's caches hold then, of the group in which a job's processes met."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Told:\n"
        "    def __del__(self, write=os.write):\n"
        "        write(2, b'taken down')\n"
        "sys.told = Told()\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    control = "from pdmd.cli import main; print(main([]))"
    for program, is_taken_down in ((["-m", "pdmd"], False), (["-c", control], True)):
        done = subprocess.run(
            [sys.executable, *program], env=environment, capture_output=True, text=True
        )
        assert "usage: " in done.stderr
        assert ("taken down" in done.stderr) == is_taken_down
