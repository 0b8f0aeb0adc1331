"""ICE ufrags and passwords: how ours are made, and both ends' as a pair. Used by ice.py."""

import secrets
from base64 import b64encode
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credentials:
    """ICE ufrag and password of both ends; an ICE restart makes new ones."""

    local_ufrag: str
    local_pwd: str
    remote_ufrag: str
    remote_pwd: str


def mint_ufrag() -> str:
    """Make a ufrag of 96 random bits."""
    return _mint(12)


def mint_pwd() -> str:
    """Make a password of 144 random bits."""
    return _mint(18)


def _mint(size: int) -> str:
    """Make text of `size` random bytes: base64's alphabet is the ice-chars'."""
    return b64encode(secrets.token_bytes(size)).decode()
