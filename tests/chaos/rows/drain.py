"""`turnout drain` of a transceiver: its calls live on, new ones go elsewhere, until `undrain`."""

from chaos.row import Row
from chaos.stage import Stage
from results import Result

SLOT = 0


def drain(stage: Stage) -> list[Result]:
    """Drain it, have sessions made meanwhile, and take the drain back."""
    theirs = stage.calls_of(SLOT)
    instance = ("--instance", stage.edge.instance)
    drained = stage.edge.run_command("drain", str(SLOT), "--no-wait", *instance)
    state = stage.owner(SLOT)["state"]
    owners = [stage.offer() for _ in range(4)]
    still = stage.calls_of(SLOT)
    undrained = stage.edge.run_command("undrain", str(SLOT), *instance)
    codes = drained.returncode, undrained.returncode
    words = (drained.stderr + undrained.stderr).strip()
    after = stage.owner(SLOT)["state"]
    return [
        Result("exit codes", f"{codes} {words}".strip(), "(0, 0)", codes == (0, 0)),
        Result(
            "states",
            f"{state}, {after}",
            "draining, active",
            (state, after) == ("draining", "active"),
        ),
        Result("new calls went to owners", owners, f"not {SLOT}", SLOT not in owners),
        Result("calls it kept", len(still), str(len(theirs)), still == theirs != []),
    ]


ROWS = (Row("drain", "`turnout drain` of a transceiver, and `undrain`", drain, gap_ms=40),)
