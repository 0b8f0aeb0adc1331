"""SRTP profiles and keys (RFC 3711, RFC 5764, RFC 7714) on pylibsrtp. Called by session.py."""

from dataclasses import dataclass

from pylibsrtp import Policy
from pylibsrtp import Session as SrtpContext

# libsrtp works in a buffer of 1500 bytes; for SRTP it keeps 144 and for SRTCP 148 of them free.
UNPROTECT_MOST = 1500
PROTECT_MOST = 1500 - 144
# Packets that may come late and still count, at 50 a second 20 s.
_REPLAY_WINDOW = 1024


@dataclass(frozen=True, slots=True)
class SrtpProfile:
    """One protection profile: its names here and there, bytes of master key and salt."""

    openssl_name: bytes
    libsrtp_profile: int
    key_bytes: int
    salt_bytes: int

    @property
    def name(self) -> str:
        """The name as RFC 5764 and RFC 7714 write it."""
        return self.openssl_name.decode()

    @property
    def material_bytes(self) -> int:
        """Bytes to export from DTLS: key and salt for each direction."""
        return 2 * (self.key_bytes + self.salt_bytes)


# In the order of preference.
PROFILES = (
    SrtpProfile(b"SRTP_AEAD_AES_128_GCM", Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 16, 12),
    SrtpProfile(b"SRTP_AES128_CM_SHA1_80", Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 16, 14),
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

    __slots__ = ("profile", "rx", "tx")

    def __init__(self, profile: SrtpProfile, receive_key: bytes, send_key: bytes) -> None:
        self.profile = profile
        self.rx = SrtpContext(_policy(profile, receive_key, Policy.SSRC_ANY_INBOUND))
        self.tx = SrtpContext(_policy(profile, send_key, Policy.SSRC_ANY_OUTBOUND))


def _policy(profile: SrtpProfile, key: bytes, direction: int) -> Policy:
    policy = Policy(key=key, ssrc_type=direction, srtp_profile=profile.libsrtp_profile)
    policy.window_size = _REPLAY_WINDOW
    return policy
