"""Where the processes of a launch listen, and what they believe."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from test_launch import descendants
from torch.distributed.elastic.rendezvous import RendezvousParameters, dynamic_rendezvous
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import C10dRendezvousBackend

from pdmd.training import rendezvous

# Two processes that meet and wait for each other, and then for a file, as a long training does.
WORKER = """
import sys, time
from pathlib import Path
from pdmd.training import world as processes
with processes.join() as world:
    world.barrier()
    Path(f"here{world.rank}").touch()
    while not Path("leave").exists():
        time.sleep(0.05)
    world.barrier()
"""

# The agent, with that in the place of a training.
AGENT = """
import sys
from pdmd.training import agent
torchrun = agent._torchrun
agent._torchrun = lambda args, logs: [*torchrun(args, logs)[: -2 - len(args.command)], "worker.py"]
sys.exit(agent.main(sys.argv[1:]))
"""


def listeners(pids):
    """The addresses at which processes listen for TCP: {(address as /proc has it, port)}."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                address, port = words[1].split(":")
                found.add((address, int(port, 16)))
    return found


def inside(address):
    """Whether an address of /proc/net is one of 127.0.0.0/8, or that mapped into IPv6."""
    mapped = "0000000000000000FFFF0000"
    return address.removeprefix(mapped).endswith("7F") and len(address.removeprefix(mapped)) == 8


@pytest.fixture
def launched(tmp_path):
    """An agent with two workers that have met, in a folder: (agent, its family)."""
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-c", AGENT, "--nodes=1", "--processes=2"]
    command += ["--endpoint=127.0.0.1:0", "--", "fit"]
    environment = {**os.environ, "PDMD_RENDEZVOUS": "not-to-be-guessed"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        end = time.time() + 60
        while not all((tmp_path / f"here{rank}").exists() for rank in (0, 1)):
            assert process.poll() is None, process.stderr.read()
            assert time.time() < end
            time.sleep(0.05)
        yield process, {process.pid} | descendants(process.pid)
    finally:
        for pid in {process.pid} | descendants(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_the_processes_of_one_node_listen_on_loopback_alone(launched):
    _, family = launched
    found = listeners(family)
    assert found
    assert all(inside(address) for address, _ in found), found
    arguments = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in family]
    assert not any(b"not-to-be-guessed" in each for each in arguments)
    everywhere = dist.TCPStore("127.0.0.1", 0, 1, True, wait_for_workers=False)
    mine = listeners([os.getpid()])
    address = next(address for address, port in mine if port == everywhere.port)
    assert not inside(address), "the control: torch's own store listens everywhere"


class Touch:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_foreign_connection_runs_nothing(launched, tmp_path):
    process, _ = launched
    payload = pickle.dumps(Touch(tmp_path / "ran"))
    ports = {port for _, port in listeners([process.pid])}
    assert len(ports) == 1
    store = dist.TCPStore("127.0.0.1", ports.pop(), None, False, timedelta(seconds=10))
    keys = [key if isinstance(key, str) else key.decode() for key in store.list_keys()]
    assert any("not-to-be-guessed" in key for key in keys)
    for key in [*keys, "torch.rendezvous.not-to-be-guessed", "torch.rendezvous.none", "x"]:
        if "barrier" not in key:
            store.set(key, payload)
    (tmp_path / "leave").touch()
    process.wait(60)
    assert not (tmp_path / "ran").exists()


def test_torch_s_own_rendezvous_would_have_run_it(tmp_path):
    """The control of the one above."""
    store = dist.TCPStore("127.0.0.1", 0, 1, True, wait_for_workers=False)
    backend = C10dRendezvousBackend(store, "run")
    backend.set_state(pickle.dumps(Touch(tmp_path / "ran")))
    timeout = dynamic_rendezvous.RendezvousTimeout()
    settings = dynamic_rendezvous.RendezvousSettings("run", 1, 1, timeout, timedelta(seconds=5), 3)
    with pytest.raises(AttributeError):  # what the pickle made is no state
        dynamic_rendezvous._BackendRendezvousStateHolder(backend, settings).sync()
    assert (tmp_path / "ran").exists()


def meeting(endpoint, rank, size=2):
    return rendezvous.create(
        RendezvousParameters("pdmd", endpoint, "secret", size, size, None, rank=str(rank))
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_the_store_of_several_nodes_listens_at_the_address_that_was_given(host):
    first = meeting(f"{host}:0", 0, size=1)
    info = first.next_rendezvous()
    wanted = "".join(f"{int(part):02X}" for part in reversed(host.split(".")))
    mine = {address for address, port in listeners([os.getpid()]) if port == first.master_port}
    assert mine == {wanted}
    assert (info.rank, info.world_size) == (0, 1)
    assert info.bootstrap_store_info.master_addr == host
    assert info.bootstrap_store_info.master_port == first.master_port


def test_two_nodes_meet():
    with_port = meeting("127.0.0.1:0", 0)
    found = {}

    def go(own):
        found[own.rank] = own.next_rendezvous()

    threads = [threading.Thread(target=go, args=(with_port,))]
    threads[0].start()
    end = time.time() + 10
    while not with_port.master_port and time.time() < end:
        time.sleep(0.01)
    threads.append(
        threading.Thread(target=go, args=(meeting(f"127.0.0.1:{with_port.master_port}", 1),))
    )
    threads[1].start()
    for thread in threads:
        thread.join(30)
    assert {rank: info.rank for rank, info in found.items()} == {0: 0, 1: 1}
    found[0].store.set("a", b"1")
    assert found[1].store.get("a") == b"1"


def test_workers_stay_at_the_interface_of_their_address(monkeypatch):
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    rendezvous.stay_at("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == os.environ["NCCL_SOCKET_IFNAME"] == "lo"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib0")
    rendezvous.stay_at("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0", "who knows better is obeyed"
    assert rendezvous.interface("192.0.2.1") is None
