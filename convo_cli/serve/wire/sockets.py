"""Listening sockets of the server. A port in use is an error before a model is loaded."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from convo_cli.errors import UsageError

Address: TypeAlias = tuple[socket.AddressFamily, str]

_BACKLOG = 128
_MISSING = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address that this machine does not have."""


@dataclass(frozen=True)
class Listening:
    """Sockets for all addresses of one host, with the same port."""

    sockets: list[socket.socket]
    host: str
    port: int

    def close(self) -> None:
        """Free the port; sockets that are closed already stay so."""
        for each in self.sockets:
            each.close()

    @property
    def url(self) -> str:
        """Return the address for a browser on this machine."""
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"


def addresses_of(host: str) -> list[Address]:
    """Return the addresses of a host, each with its family; UsageError if it has none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    addresses = dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found)
    known: list[Address] = [
        pair for pair in addresses if pair[0] in (socket.AF_INET, socket.AF_INET6)
    ]
    if not host or not known:
        raise UsageError(
            f"--host {host or repr(host)}: the name has no address",
            hint="127.0.0.1 for this machine only, 0.0.0.0 for all networks",
        )
    return known


def are_loopback(addresses: Sequence[Address]) -> bool:
    """Return whether only this machine can reach the addresses."""
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for _, one in addresses)


def listen(host: str, addresses: Sequence[Address], port: int) -> Listening:
    """Open the port on each address of a host; 0 is any free port.

    Connections wait in the system's queue until the server accepts them.
    """
    sockets, unusable = list[socket.socket](), list[OSError]()
    for family, address in addresses:
        try:
            sockets.append(_open(family, address, port))
        except OSError as error:
            if error.errno in _MISSING:  # localhost may be ::1 too, on a machine without IPv6
                unusable.append(error)
                continue
            _close(sockets)
            raise _refusal(error, host, port) from None
        port = sockets[-1].getsockname()[1]
    if not sockets:
        raise _refusal(unusable[0], host, port)
    return Listening(sockets, host, port)


def _open(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # on Windows it would share a port in use
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((address, port))
        opened.listen(_BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()


def _refusal(error: OSError, host: str, port: int) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"--port {port}: already in use on {host}",
            hint="stop the other program, or use another port; --port 0 takes a free one",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return UsageError(
            f"--port {port}: permission denied on {host}",
            hint="ports below 1024 are reserved: use a higher one, such as --port 8000",
        )
    if error.errno in _MISSING:
        return UsageError(
            f"--host {host}: not an address of this machine",
            hint="127.0.0.1 for this machine only, 0.0.0.0 for all networks",
        )
    return UsageError(f"--host {host} --port {port}: {error.strerror or error}")
