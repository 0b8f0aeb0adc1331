"""SRTP profiles and keys (RFC 3711, RFC 5764, RFC 7714) on pylibsrtp. Called by session.py."""

from dataclasses import dataclass

from pylibsrtp import Policy
from pylibsrtp import Session as SrtpContext

from turnout.transceiver.replay import REPLAY_WINDOW
from turnout.transceiver.rollover import get_rollover, set_rollover

# libsrtp works in a buffer of 1500 bytes; for SRTP it keeps 144 and for SRTCP 148 of them free.
UNPROTECT_MOST = 1500
PROTECT_MOST = 1500 - 144
_SRTCP_INDEX_MOST = (1 << 31) - 1
# The least SRTCP packet that libsrtp takes: an empty receiver report.
_EMPTY_REPORT = bytes((0x80, 201, 0, 1))


@dataclass(frozen=True, slots=True)
class SrtpProfile:
    """One protection profile: its names here and there, bytes of master key and salt."""

    openssl_name: bytes
    libsrtp_profile: int
    key_bytes: int
    salt_bytes: int
    rtcp_index_at: int  # from the end of an SRTCP datagram

    @property
    def name(self) -> str:
        """The name as RFC 5764 and RFC 7714 write it."""
        return self.openssl_name.decode()

    def rtcp_index(self, data: bytes) -> int:
        """Return the index that an SRTCP datagram carries (RFC 3711 section 3.4)."""
        at = len(data) - self.rtcp_index_at
        return int.from_bytes(data[at : at + 4], "big") & 0x7FFFFFFF

    @property
    def material_bytes(self) -> int:
        """Bytes to export from DTLS: key and salt for each direction."""
        return 2 * (self.key_bytes + self.salt_bytes)


# In the order of preference.
PROFILES = (
    SrtpProfile(b"SRTP_AEAD_AES_128_GCM", Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12, 4),
    SrtpProfile(b"SRTP_AES128_CM_SHA1_80", Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14, 14),
)


@dataclass(frozen=True, slots=True)
class SrtpKeys:
    """Master key and salt, in one piece, of either direction."""

    client: bytes
    server: bytes


def split_keying_material(profile: SrtpProfile, material: bytes) -> SrtpKeys:
    """Split what DTLS exported: client key, server key, client salt, server salt (RFC 5764 4.2)."""
    keys, salts = material[: 2 * profile.key_bytes], material[2 * profile.key_bytes :]
    client = keys[: profile.key_bytes] + salts[: profile.salt_bytes]
    server = keys[profile.key_bytes :] + salts[profile.salt_bytes :]
    return SrtpKeys(client, server)


class Srtp:
    """Both directions of one session. `rx` and `tx` raise pylibsrtp.Error.

    `tx` refuses an index it has used (allow_repeat_tx is off): the last guard of the keystream.
    """

    __slots__ = (
        "_burning",
        "profile",
        "receive_key",
        "reports_owed",
        "reports_sent",
        "rx",
        "send_key",
        "tx",
    )

    def __init__(self, profile: SrtpProfile, receive_key: bytes, send_key: bytes) -> None:
        self.profile = profile
        self.receive_key = receive_key
        self.send_key = send_key
        self.reports_sent = 0  # the SRTCP index of the latest one that was protected
        self.reports_owed = 0  # those of them that `tx` does not know of yet
        self._burning = b""
        self.rx = SrtpContext(_policy(profile, receive_key, Policy.SSRC_ANY_INBOUND))
        self.tx = SrtpContext(_policy(profile, send_key, Policy.SSRC_ANY_OUTBOUND))

    def protect_rtcp(self, packet: bytes) -> bytes:
        """Protect an RTCP packet of ours under the next SRTCP index."""
        self.burn(self.reports_owed)
        self.reports_sent += 1
        return self.tx.protect_rtcp(packet)

    def rollover_in(self, ssrc: int) -> int:
        """Return how often a source of the client's went round; KeyError: it sent no SRTP."""
        return get_rollover(self.rx, ssrc)

    def burn(self, most: int) -> None:
        """Use up so many SRTCP indices that another process has used, some 1 to 2 us each."""
        count = min(most, self.reports_owed)
        for _ in range(count):
            self.tx.protect_rtcp(self._burning)
        self.reports_owed -= count

    def destroy(self) -> None:
        """Let go of both contexts for good: nothing is protected or opened here any more."""
        del self.rx, self.tx
        self.receive_key = self.send_key = b""

    def follow(self, ssrc: int, rollover: int, latest: bytes) -> None:
        """Go on receiving a source where another process left off.

        `latest` is the datagram of its highest index as it came: opened again, it puts libsrtp at
        that index, which the roll-over counter alone does not when the sequence number goes round
        next. Raises pylibsrtp.Error if it is not what it is said to be.
        """
        self.rx.add_stream(_policy(self.profile, self.receive_key, Policy.SSRC_SPECIFIC, ssrc))
        set_rollover(self.rx, ssrc, rollover)
        self.rx.unprotect(latest)

    def resume(self, ssrc: int, next_index: int, reports_sent: int) -> None:
        """Go on sending as `ssrc` where another process left off, and never before that.

        libsrtp has no setter for the SRTCP index: it has to be burnt forward (`burn`), of a call of
        a day 35,000. That can wait until the next report; all other calls would wait for it now.
        """
        self.tx.add_stream(_policy(self.profile, self.send_key, Policy.SSRC_SPECIFIC, ssrc))
        set_rollover(self.tx, ssrc, next_index >> 16)
        if not 0 <= reports_sent <= _SRTCP_INDEX_MOST:
            raise ValueError(f"{reports_sent} SRTCP packets were never sent under one key")
        self._burning = _EMPTY_REPORT + ssrc.to_bytes(4, "big")
        self.reports_sent = self.reports_owed = reports_sent


def _policy(profile: SrtpProfile, key: bytes, direction: int, ssrc: int = 0) -> Policy:
    policy = Policy(
        key=key, ssrc_type=direction, ssrc_value=ssrc, srtp_profile=profile.libsrtp_profile
    )
    policy.window_size = REPLAY_WINDOW
    return policy
