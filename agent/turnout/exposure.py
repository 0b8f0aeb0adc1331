"""Whether the WHIP door may stand open where it listens: a rule of settings, kept apart."""

from ipaddress import ip_address

from turnout.errors import SettingsError


def check_exposure(host: str, *, token: str, is_open: bool) -> None:
    """Raise SettingsError where anybody on the Internet could place calls without having said so.

    `host` is the address that --http listens on. Every address of the host (0.0.0.0, ::) counts
    as public: behind a cloud's 1:1 NAT a private one may be, too.
    """
    address = ip_address(host)
    if token or is_open or not (address.is_global or address.is_unspecified):
        return
    raise SettingsError(
        f"http {host}: a public address, and no token is asked for; set http-token, listen on "
        "127.0.0.1, or let everybody call with --open",
        "http",
    )
