"""The unit files of one edge, filled in. `turnout units` prints or installs them."""

import re
import shlex
import sys
from importlib.resources import files
from pathlib import Path

from turnout.accounts import needed_capabilities
from turnout.errors import SettingsError
from turnout.installation import Installation
from turnout.kernel.pins import Pins
from turnout.settings import Settings
from turnout.watchdog import STUCK_SECONDS

# A unit's name -> the file it is made from. The first one is the edge as a whole.
_SOURCES = {
    "{}.service": "edge.service",
    "{}-loader.service": "loader.service",
    "{}-agent.service": "agent.service",
    "{}-transceiver@.service": "transceiver@.service",
}
_PARTS = ("agent", "loader", "transceiver")
_PLACEHOLDER = re.compile(r"@([a-z]+)@")


def service_name(instance: str) -> str:
    """Return how the units of an instance are named: turnout, or turnout-two."""
    if instance.rpartition("-")[2] in _PARTS:
        raise SettingsError(
            f"instance {instance!r}: turnout-{instance} would be the name of a part of another "
            "edge; give it another name to have units",
            "instance",
        )
    return "turnout" if instance == "default" else f"turnout-{instance}"


def transceiver_unit(instance: str, slot: int) -> str:
    """Return the name of the unit of a transceiver."""
    return f"{service_name(instance)}-transceiver@{slot}.service"


def build_units(settings: Settings, config: Path | None) -> dict[str, str]:
    """Return the text of every unit by its name, for this installation.

    `config` is the settings file if it is not the usual one. Raises SettingsError.
    """
    service = service_name(settings.instance)
    root = ("--runtime-root", str(settings.runtime_root))
    is_usual = settings.runtime_root == Settings().runtime_root
    variables = Installation.mine().variables.items()
    values = {
        "service": service,
        "instance": settings.instance,
        "turnout": _command(sys.executable, "-m", "turnout"),
        "select": _command("--instance", settings.instance, *(() if is_usual else root)),
        "config": "" if config is None else " " + _command("--config", str(config.absolute())),
        "environment": "\n".join(f"Environment={_quote(f'{k}={v}')}" for k, v in variables),
        "runtime": _quote(str(settings.runtime)),
        "above": _quote(str(settings.runtime_root.parent)),
        "bpffs": _quote(str(settings.bpffs)),
        "pins": _quote(str(Pins(settings.bpffs, settings.instance).root)),
        "capabilities": " ".join(sorted(needed_capabilities(settings))),
        "watchdog": str(STUCK_SECONDS),
    }
    sources = files(__package__)
    values["sandbox"] = sources.joinpath("sandbox").read_text(encoding="utf-8").rstrip()
    return {
        name.format(service): _fill(sources.joinpath(source).read_text(encoding="utf-8"), values)
        for name, source in _SOURCES.items()
    }


def _fill(text: str, values: dict[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)


def _quote(*words: str) -> str:
    # systemd.unit(5): a % is a specifier's.
    return shlex.join(words).replace("%", "%%")


def _command(*words: str) -> str:
    # systemd.service(5): in a command a $ is a variable's.
    return _quote(*words).replace("$", "$$")
