"""The rows, in the order in which they run. A new one is a function in a file here, and a line."""

from chaos.row import Row
from chaos.rows import agent, drain, handoff, network, supervisor, transceiver, upgrade

QUIET = Row("quiet", "nothing happens: what the others' gaps are compared with", lambda _: [])
ROWS = {
    row.name: row
    for row in (
        QUIET,
        *agent.ROWS,
        *transceiver.ROWS,
        *upgrade.ROWS,
        *drain.ROWS,
        *handoff.ROWS,
        *network.ROWS,
        *supervisor.ROWS,
    )
}
