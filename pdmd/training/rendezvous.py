"""Where the agents of `pdmd launch` meet: a store that listens at one address only.

torchrun's own c10d rendezvous listens at every address of the machine and unpickles what it finds
in its store, which anyone may write to: TCPStore knows no authentication. Here nothing in the store
is unpickled, it listens on loopback where there is one node, else at the address by which the other
nodes are reached, and its keys begin with a secret, so that launches never take each other's.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import (
    RendezvousInfo,
    RendezvousParameters,
    rendezvous_handler_registry,
)
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

BACKEND = "pdmd"
PATIENCE = timedelta(minutes=10)  # for agents that are still to come
LOOPBACK = "127.0.0.1"
SIOCGIFADDR = 0x8915


class Meeting(StaticTCPRendezvous):
    """torch's static rendezvous, with the store of rank 0 at its address and no other."""

    def get_backend(self) -> str:
        """The name under which torchrun finds it."""
        return BACKEND

    def next_rendezvous(self) -> RendezvousInfo:
        """Open the store, or find the one of rank 0; torch's own does the rest."""
        if self._store is None:
            self._store = self._listen() if self.rank == 0 else self._connect(self.master_port)
        return super().next_rendezvous()

    def _listen(self) -> TCPStore:
        family, _, _, _, address = socket.getaddrinfo(
            self.master_addr, self.master_port, type=socket.SOCK_STREAM
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=1024)
        self.master_port = listener.getsockname()[1]
        return self._connect(self.master_port, listener.detach())

    def _connect(self, port: int, listener: int | None = None) -> TCPStore:
        return TCPStore(
            self.master_addr,
            port,
            self.world_size,
            is_master=listener is not None,
            timeout=self.timeout,
            master_listen_fd=listener,
        )


def create(parameters: RendezvousParameters) -> Meeting:
    """A meeting, as torchrun makes it: the endpoint is rank 0's, port 0 any that is free."""
    host, _, port = parameters.endpoint.rpartition(":")
    return Meeting(
        host.strip("[]"),
        int(port),
        int(parameters.config["rank"]),
        parameters.max_nodes,
        parameters.run_id,
        int(PATIENCE.total_seconds()),
    )


def register() -> None:
    """Let torchrun know of it."""
    rendezvous_handler_registry.register(BACKEND, create)


def stay_at(address: str) -> None:
    """Have this process's workers, too, listen where this address is, unless told otherwise."""
    if address == LOOPBACK:
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    name = interface(address)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface(address: str) -> str | None:
    """The network interface with an IPv4 address, None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # an interface without an address
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
