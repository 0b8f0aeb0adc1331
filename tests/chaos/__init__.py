"""An edge that things happen to: processes die, links flap, and calls in progress must not notice.

`python -m chaos` (scripts/chaos) runs it; docs/chaos.md says what it shows.
"""
