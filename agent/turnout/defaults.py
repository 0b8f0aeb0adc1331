"""What `turnout run` takes when it is not told interfaces or VIPs: the host's own defaults."""

from turnout.errors import KernelError, SettingsError
from turnout.kernel import host
from turnout.settings import Settings


def fill_defaults(settings: Settings) -> Settings:
    """Return the settings with interfaces and VIPs filled in. Raises SettingsError.

    Interfaces: those of the default routes; without one, the only other interface that has an
    address for clients. VIPs: the preferred source address of each family there. What was filled
    in is marked: the edge goes along when the host's defaults change.
    """
    interfaces = settings.interfaces
    try:
        if not interfaces:
            interfaces = tuple(host.default_interfaces())
        for name in interfaces:
            host.interface(name)
    except KernelError as error:
        # An edge on the loopback interface alone, for trying things out, needs no other.
        if settings.interfaces or not (settings.local and settings.vips):
            raise SettingsError(f"interface: {error}") from error
    vips = settings.vips or tuple(host.default_vips(list(interfaces)))
    if not vips:
        where = ", ".join(interfaces)
        raise SettingsError(f"vip: {where} has no address for clients; name one with --vip")
    return settings.replace(
        interfaces=interfaces,
        vips=vips,
        follow_interfaces=not settings.interfaces,
        follow_vips=not settings.vips,
    )
