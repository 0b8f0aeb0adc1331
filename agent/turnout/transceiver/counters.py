"""What one transceiver process counts. Named like the kernel's counters: family__reason."""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counters:
    """Datagrams and sessions since the process started.

    Every datagram taken from a socket is counted in `received` and ends in exactly one of
    handled__*, ignored__* or drop__*: their sum equals `received`.
    """

    received: int = 0

    handled__stun_request: int = 0
    handled__stun_response: int = 0
    handled__dtls: int = 0
    handled__rtp: int = 0
    handled__rtcp: int = 0
    handled__forwarded: int = 0  # to who has the session now

    ignored__stun_indication: int = 0  # keeps a NAT open; anybody can send one
    ignored__dtls_left: int = 0  # its association ended in a hand-off: nobody can read it

    drop__empty: int = 0
    drop__unknown_class: int = 0  # first byte is none of STUN, DTLS, RTP (RFC 7983)
    drop__bad_stun: int = 0
    drop__bad_username: int = 0  # a request without USERNAME, or with no ':' in it
    drop__no_session: int = 0  # the ufrag is nobody's here
    drop__bad_integrity: int = 0
    drop__role_conflict: int = 0  # authenticated, answered with 487
    drop__stun_unsolicited: int = 0  # a response to no probe of ours
    drop__stun_unsupported: int = 0  # another method than Binding
    drop__no_flow: int = 0  # DTLS, RTP or RTCP from an address no check came from
    drop__bad_dtls: int = 0
    drop__dtls_unproven: int = 0  # more than is kept while the first probe is on its way
    drop__dtls_no_handshake: int = 0  # no ClientHello has begun one
    drop__handshake_limit: int = 0  # a ClientHello while as many handshakes go on as may
    drop__dtls_screened: int = 0  # nothing was left of it but records that would poison it
    drop__media_before_dtls: int = 0
    drop__oversize: int = 0
    drop__bad_rtp: int = 0
    drop__bad_rtcp: int = 0
    drop__srtp_auth: int = 0
    drop__srtp_replay: int = 0
    drop__ssrc_limit: int = 0
    drop__payload_type: int = 0

    # Records taken out of datagrams before OpenSSL saw them.
    screened__plaintext_alert: int = 0
    screened__bad_handshake: int = 0
    screened__early_ccs: int = 0
    dtls_restarted: int = 0  # handshakes that a stray record spoiled, begun anew

    sent: int = 0
    send_failed__would_block: int = 0
    send_failed__refused: int = 0  # the kernel said no: unreachable, filtered, too large
    unsent__oversize: int = 0  # media longer than SRTP has room for

    probes: int = 0
    probes_answered: int = 0
    amplification_limited: int = 0  # times a probe had to wait for more bytes of an unproven flow
    followed_media: int = 0  # the selected flow was silent, the client's media came by another
    ice_restarts: int = 0  # asked for by the client
    ice_restarts_done: int = 0  # and the client was selected under the new credentials
    # With --app rtp://: packets between the calls and the backend.
    bridge__sent: int = 0
    bridge__refused: int = 0  # nobody listens at the backend's port
    bridge__unsent: int = 0  # the call has no socket, or it would take no more
    bridge__failed: int = 0  # calls that got no socket
    bridge__received: int = 0  # what follows is part of it, and goes no further
    bridge__bad_rtp: int = 0
    bridge__payload_type: int = 0  # not one that this call agreed on
    bridge__ignored_rtcp: int = 0
    webhook__told: int = 0
    webhook__lost: int = 0  # the service was away, or too slow
    internal_errors: int = 0  # a bug: the log has its traceback

    sessions_created: int = 0
    sessions_taken: int = 0  # in a hand-off, from another transceiver
    sessions_given: int = 0
    sessions_spoiled: int = 0  # ended in a hand-off that failed on its way
    sessions_ended__deleted: int = 0
    sessions_ended__bye: int = 0
    sessions_ended__dtls_closed: int = 0
    sessions_ended__timeout: int = 0
    sessions_ended__failed: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return name -> value, for the control interface."""
        return asdict(self)
