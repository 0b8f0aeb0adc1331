"""Numbered packets with per-packet accounting: who sends them, who echoes them, over which links.

Shared by attack/ and chaos/: each puts a stage of its own around these.
"""
