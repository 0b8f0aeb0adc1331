"""The steering decision once more, in Python: the specification that the C in bpf/ is held against.

Read in this order: packet.py (what a frame is), stun.py (what a request says), table.py (where a
flow stands), state.py (what an edge knows), edge.py (what it does with a packet), learn.py and
icmp.py (parts of that). Different from the C on purpose: dicts instead of maps, exceptions instead
of codes, hmac with the password instead of mid-states. One CPU, so nothing here is about writers
that meet. Used by the differential fuzzer and the property tests.
"""

from reference.edge import Outcome, Reference
from reference.state import ACTIVE, DOWN, DRAINING, Owner, Session, Settings
from reference.table import Flow, FlowKey, FlowTable, OwnerId

__all__ = [
    "ACTIVE",
    "DOWN",
    "DRAINING",
    "Flow",
    "FlowKey",
    "FlowTable",
    "Outcome",
    "Owner",
    "OwnerId",
    "Reference",
    "Session",
    "Settings",
]
