"""Who holds which port, read from procfs. Called by kernel/facts/ for `turnout doctor`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

Address = IPv4Address | IPv6Address
_TCP_LISTEN = "0A"  # include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class HeldPort:
    """A bound UDP socket or a listening TCP socket. `pid` 0: its process is not to be seen."""

    protocol: str  # "udp" or "tcp"
    address: Address
    port: int
    inode: int
    pid: int = 0
    command: str = ""

    def clashes(self, address: Address, port: int) -> bool:
        """Whether a socket bound to (address, port) would collide with this one."""
        if self.port != port:
            return False
        if self.address == address or address.is_unspecified:
            return True
        # A wildcard IPv6 socket takes IPv4 too, unless it is IPV6_V6ONLY: procfs does not say.
        return self.address.is_unspecified

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{self.protocol} {host}:{self.port} of {self.holder}"

    @property
    def holder(self) -> str:
        """Who has it, for people."""
        return f"{self.command} (pid {self.pid})" if self.pid else "an unseen process"


def held_ports(protocol: str, ports: Iterable[int]) -> list[HeldPort]:
    """Return the sockets of this network namespace that hold one of `ports`."""
    wanted = frozenset(ports)
    held = []
    for name in (protocol, f"{protocol}6"):
        try:
            text = Path(f"/proc/self/net/{name}").read_text(encoding="ascii")
        except FileNotFoundError:
            continue  # no IPv6 in this kernel
        held += [socket for socket in parse_sockets(text, protocol) if socket.port in wanted]
    if not held:
        return []
    pids = _pids_by_inode({socket.inode for socket in held})
    return [_with_holder(socket, pids.get(socket.inode, 0)) for socket in held]


def parse_sockets(text: str, protocol: str) -> list[HeldPort]:
    """Read /proc/net/{udp,tcp}{,6} (proc(5)): addresses in hexadecimal words of the host."""
    sockets = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if protocol == "tcp" and fields[3] != _TCP_LISTEN:
            continue
        host, port = fields[1].split(":")
        words = [int(word, 16).to_bytes(4, "little") for word in re.findall("." * 8, host)]
        address = ip_address(b"".join(words))
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        sockets.append(HeldPort(protocol, mapped or address, int(port, 16), int(fields[9])))
    return sockets


def _with_holder(socket: HeldPort, pid: int) -> HeldPort:
    if not pid:
        return socket
    try:
        command = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return socket  # it ended meanwhile
    return replace(socket, pid=pid, command=command)


def _pids_by_inode(inodes: set[int]) -> dict[int, int]:
    """Find the processes that hold these sockets; without root only one's own are seen."""
    targets = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, int] = {}
    for directory in Path("/proc").glob("[0-9]*/fd"):
        try:
            for descriptor in directory.iterdir():
                inode = targets.get(str(descriptor.readlink()))
                if inode is not None:
                    found[inode] = int(directory.parent.name)
        except OSError:
            continue  # not ours to see, or gone
    return found
