"""A real WebRTC client that places test calls: `turnout call` and the tests use it.

It shares nothing with the edge but `wire/` and `errors`: what it proves, it proves from outside.
aiortc (the optional extra `turnout[call]`) is imported only when a call is placed.
"""

from turnout.calling.call import Call, place_call, place_calls
from turnout.calling.report import CallReport

__all__ = ["Call", "CallReport", "place_call", "place_calls"]
