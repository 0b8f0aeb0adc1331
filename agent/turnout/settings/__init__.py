"""What an edge is told: flags and a TOML file, checked once and frozen.

values   the values that settings are made of, and how one is read
tables   [[ice_server]] and [[upstream]]
limits   [limits]
keys     every key: its name, its field, what it is, whether a reload applies it
checks   what must hold between them
edge     Settings itself
file     turnout.toml
reload   which changes of a running edge are applied at once
"""

from turnout.settings.edge import Settings
from turnout.settings.limits import Limits
from turnout.settings.values import (
    OWNERS_MAX,
    RUNTIME_ROOT,
    VIPS_MAX,
    Address,
    Advertise,
    Endpoint,
    is_private,
)

__all__ = [
    "OWNERS_MAX",
    "RUNTIME_ROOT",
    "VIPS_MAX",
    "Address",
    "Advertise",
    "Endpoint",
    "Limits",
    "Settings",
    "is_private",
]
