"""Binding requests of our own: what they prove is in ice.py, which sends them by these.

A probe is sent up to five times, the same each time; a flow has one on its way at most. Until its
client has answered one, a flow gets no more than flow.py allows: then a probe is held back until
more comes from the client.
"""

import secrets

from turnout.transceiver.credentials import Credentials
from turnout.transceiver.flow import NEVER, Flow
from turnout.transceiver.outside import Outside
from turnout.wire.stun import build_binding_request

# From one transmission of a probe to the next; after the last one it counts as unanswered.
PROBE_WAITS = (0.1, 0.2, 0.4, 0.8, 1.0)
PROBE_SECONDS = sum(PROBE_WAITS)
# Peer-reflexive type preference 110, local preference 65535, component 1 (RFC 8445 section 5.1.2.1)
PROBE_PRIORITY = 110 << 24 | 65535 << 8 | 255


class Prober:
    """Sends the probes of one session, and sends them again."""

    __slots__ = ("_outside", "tie_breaker")

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self.tie_breaker = secrets.randbits(64)

    def start(self, flow: Flow, credentials: Credentials, now: float) -> None:
        """Send a new probe, in place of the one that may be on its way."""
        self.stop(flow)
        flow.probe_id = secrets.token_bytes(12)
        flow.probe_pwd = credentials.remote_pwd.encode()
        flow.probe = build_binding_request(
            username=f"{credentials.remote_ufrag}:{credentials.local_ufrag}",
            pwd=credentials.remote_pwd,
            priority=PROBE_PRIORITY,
            tie_breaker=self.tie_breaker,
            transaction_id=flow.probe_id,
        )
        flow.probe_started = now
        flow.probe_transmissions = 0
        self._outside.probes[flow.probe_id] = flow
        self._outside.counters.probes += 1
        self.go_on(flow, now)

    def go_on(self, flow: Flow, now: float) -> bool:
        """Send the probe (again), if the flow may be sent it; False once it counts as unanswered.

        The next time is the flow's `probe_next`, or when more comes from the client.
        """
        sent = flow.probe_transmissions
        if sent == len(PROBE_WAITS) or now - flow.probe_started >= PROBE_SECONDS:
            self.stop(flow)
            return False
        flow.probe_next = now + PROBE_WAITS[sent]
        flow.probe_is_held = not flow.may_send(len(flow.probe))
        if flow.probe_is_held:
            self._outside.counters.amplification_limited += 1
            return True
        flow.probe_transmissions += 1
        flow.bytes_out += len(flow.probe)
        self._outside.transmit(flow, flow.probe)
        return True

    def stop(self, flow: Flow) -> None:
        """Wait for its answer no longer, if a probe is on its way."""
        flow.probe_is_held = False
        if flow.is_probing:
            del self._outside.probes[flow.probe_id]
            flow.probe_next = NEVER
