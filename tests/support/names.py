"""Names and addresses of hosts that do not exist: a resolver, and connections that all end on loopback."""

import socket
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

ELSEWHERE, ELSEWHERE_TOO, METADATA = "192.0.2.1", "192.0.2.2", "169.254.169.254"


@dataclass
class Names:
    """What each name resolves to: one answer for each lookup, the last one for all that follow."""

    answers: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    refusing: set[str] = field(default_factory=set)
    """Addresses that refuse connections."""
    silent: set[str] = field(default_factory=set)
    """Addresses that do not answer at all."""
    lookups: list[str] = field(default_factory=list)
    connections: list[str] = field(default_factory=list)
    """Each address that a connection was tried to."""

    def add(self, name: str, *answers: tuple[str, ...]) -> None:
        """Let *name* resolve to these addresses."""
        self.answers[name] = list(answers)


def install(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Replace the resolver of this process, and lead its connections to 127.0.0.1."""
    names = Names()
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in names.answers:
            return resolve(host, port, *arguments, **options)
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        names.lookups.append(host)
        answers = names.answers[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        infos = (resolve(address, port, *arguments, **options) for address in addresses)
        return [info for found in infos for info in found]

    def connect_here(sock: socket.socket, address: Any) -> None:
        if isinstance(address, tuple):
            names.connections.append(address[0])
            if address[0] in names.refusing:
                raise ConnectionRefusedError(111, "refused")
            if address[0] in names.silent:
                time.sleep(sock.gettimeout() or 60)
                raise TimeoutError("timed out")
            address = ("127.0.0.1", address[1])
        connect(sock, address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", connect_here)
    return names
