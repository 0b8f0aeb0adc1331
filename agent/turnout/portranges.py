"""Sets of ports as the kernel writes them in ip_local_reserved_ports: "80,20000-20999"."""


def parse_port_ranges(text: str) -> set[int]:
    """Return the ports of a text like "80,20000-20999"."""
    ports: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        low, _, high = part.partition("-")
        ports.update(range(int(low), int(high or low) + 1))
    return ports


def build_port_ranges(ports: set[int]) -> str:
    """Return the shortest text for a set of ports."""
    parts: list[str] = []
    first: int | None = None
    for port in sorted(ports):
        if first is None:
            first = port
        if port + 1 not in ports:
            parts.append(str(port) if port == first else f"{first}-{port}")
            first = None
    return ",".join(parts)
