"""The few lines of an SDP that a test call looks at: its candidates."""

from ipaddress import ip_address

_PREFIX = "a=candidate:"


def keep_family(text: str, family: int | None) -> str:
    """Return the SDP with only candidates of that IP version (4 or 6); None keeps all."""
    if family is None:
        return text
    kept = [line for line in text.splitlines() if _family_of(line) in {None, family}]
    return "\r\n".join(kept) + "\r\n"


def candidates(text: str) -> list[str]:
    """Return the UDP candidates as address:port, IPv6 in brackets."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        if line.startswith(_PREFIX) and len(fields) >= 6 and fields[2].lower() == "udp":
            found.append(format_address(fields[4], int(fields[5])))
    return found


def format_address(address: str, port: int) -> str:
    """Return address:port, an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _family_of(line: str) -> int | None:
    """Return 4 or 6 for a candidate with an address, None for any other line."""
    fields = line.split()
    if not line.startswith(_PREFIX) or len(fields) < 6:
        return None
    try:
        return ip_address(fields[4]).version
    except ValueError:
        return None  # a .local name: not ours to resolve
