"""Turnout: an in-kernel edge forwarder for WebRTC."""

__version__ = "0.1.0"
