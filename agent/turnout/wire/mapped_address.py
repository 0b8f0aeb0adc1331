"""Addresses as the kernel's maps hold them: 16 bytes, IPv4 v4-mapped (RFC 4291 section 2.5.5.2)."""

from ipaddress import IPv4Address, IPv6Address, ip_address


def build_mapped(address: IPv4Address | IPv6Address | str) -> bytes:
    """Return the 16 bytes of an address."""
    if isinstance(address, str):
        address = ip_address(address)
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def parse_mapped(data: bytes) -> IPv4Address | IPv6Address:
    """Return the address behind 16 bytes."""
    address = IPv6Address(data)
    return address.ipv4_mapped or address
