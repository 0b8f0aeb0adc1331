"""Turnout under systemd: the unit files of an edge, and what they run.

The *.service files and `sandbox`, which is part of each, are filled in by files.py; parts.py is
what they run. systemd starts, watches and ends the processes then, instead of supervisor.py.
"""
