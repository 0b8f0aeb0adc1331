"""Who the processes of an edge are: the user of transceivers, the capabilities of the agent.

Used by the supervisor, the agent and doctor; privileges.py carries it out.
"""

import pwd
from dataclasses import dataclass

from turnout.errors import SettingsError
from turnout.settings import Settings

PREFERRED = "turnout"
FALLBACK = "nobody"
# Past it come numbers that are no user: to the kernel, -1 is "as it was".
_UID_MOST = 2**32 - 2
_UNPRIVILEGED_PORTS = 1024  # ip_unprivileged_port_start of a host that nobody changed


@dataclass(frozen=True, slots=True)
class Account:
    """A user and its group, by number. `note`: what should be better, in words."""

    name: str
    uid: int
    gid: int
    note: str = ""

    def __str__(self) -> str:
        return self.name if self.name == str(self.uid) else f"{self.name} (uid {self.uid})"


def find_account(wanted: str) -> Account:
    """Return the account of a name or number; of "" the one that fits this host.

    Raises SettingsError: no such user, or root.
    """
    if wanted:
        return _refuse_root(_of_number(int(wanted)) if wanted.isdecimal() else _of_name(wanted))
    try:
        return _refuse_root(_of_name(PREFERRED))
    except SettingsError:
        account = _of_name(FALLBACK)
    note = (
        f"transceivers run as {FALLBACK}, which other services may run as too; give them a user of "
        f"their own: useradd --system --no-create-home --shell /usr/sbin/nologin {PREFERRED}"
    )
    return Account(account.name, account.uid, account.gid, note)


def needed_capabilities(settings: Settings) -> set[str]:
    """Return what the agent needs beside its user, which is root: files and pins are root's.

    BPF for maps and programs, NET_ADMIN to attach them; the rest only where settings ask for it.
    """
    needed = {"CAP_BPF", "CAP_NET_ADMIN"}
    if min(settings.shared_port, settings.http.port, settings.metrics.port) < _UNPRIVILEGED_PORTS:
        needed.add("CAP_NET_BIND_SERVICE")
    if settings.tls_key is not None:
        # Somebody else's, perhaps, and read again whenever they change.
        needed.add("CAP_DAC_READ_SEARCH")
    if any(upstream.socket for upstream in settings.upstreams):
        # To connect to a socket of another user is to write to it.
        needed.add("CAP_DAC_OVERRIDE")
    return needed


def _of_name(name: str) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise SettingsError(
            f"transceiver-user {name!r}: there is no such user; name one or give a uid",
            "transceiver-user",
        ) from error
    return Account(name, entry.pw_uid, entry.pw_gid)


def _of_number(uid: int) -> Account:
    """Return the account of a uid, which need not be in the user database."""
    if uid > _UID_MOST:
        raise SettingsError(
            f"transceiver-user {uid}: is no uid; the largest is {_UID_MOST}", "transceiver-user"
        )
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, uid)
    return Account(entry.pw_name, uid, entry.pw_gid)


def _refuse_root(account: Account) -> Account:
    if account.uid == 0 or account.gid == 0:
        raise SettingsError(
            f"transceiver-user {account.name!r}: is root or in root's group; transceivers need no "
            "privilege, name another",
            "transceiver-user",
        )
    return account
