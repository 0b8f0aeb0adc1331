"""The `turnout` command: one module a sub-command, the only place that prints."""
