"""Numbered flows as an edge knows them: sessions of registered owners, over its local API."""

from system.edge_process import EdgeProcess
from system.namespaces import CLIENT_ADDRESSES, EDGE_ADDRESSES
from traffic.clients import Flow
from traffic.sessions import Credentials

SHARED_PORT = 3478
FIRST_CLIENT_PORT = 30_000  # below the ephemeral range


def register_session(edge: EdgeProcess, ufrag: str, owner: int) -> tuple[Credentials, int]:
    """Register a session; returns it and its id in the kernel."""
    pwd = f"passwordOf{ufrag:x>16}"
    made = edge.api("POST", "/sessions", {"ufrag": ufrag, "pwd": pwd, "owner": owner})
    return Credentials(ufrag, pwd), int(made["id"][:16], 16)


def register_flows(edge: EdgeProcess, owners: list[int], count: int) -> list[tuple[Flow, int]]:
    """Register the sessions of `count` clients: both IP versions, four addresses, two owners.

    Returns each with its session's id in the kernel.
    """
    flows = []
    for number in range(count):
        version = (4, 6)[number % 2]
        owner = owners[number // 2 % 2]
        session, session_id = register_session(edge, f"flow{number:03d}", owner)
        address = CLIENT_ADDRESSES[version][number // 4 % 2]
        source = (address, FIRST_CLIENT_PORT + number)
        flow = Flow(source, (EDGE_ADDRESSES[version], SHARED_PORT), session)
        flows.append((flow, session_id))
    return flows
