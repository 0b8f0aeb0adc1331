"""The roll-over counter of an SRTP stream: libsrtp has it, pylibsrtp does not. Used by srtp.py.

The library that pylibsrtp brings exports `srtp_get_stream_roc` and `srtp_set_stream_roc`; nothing
else of its inside is touched.
"""

import ctypes

from pylibsrtp import Session as SrtpContext
from pylibsrtp import _binding

_library = ctypes.CDLL(_binding.__file__)
_OK = 0  # srtp_err_status_ok


def _pointer(context: SrtpContext) -> ctypes.c_void_p:
    handle = context._srtp[0]  # noqa: SLF001 - the srtp_t, which has no public name
    return ctypes.c_void_p(int(_binding.ffi.cast("uintptr_t", handle)))


def get_rollover(context: SrtpContext, ssrc: int) -> int:
    """Return how often the stream's sequence number went round; KeyError: no such stream."""
    found = ctypes.c_uint32()
    status = _library.srtp_get_stream_roc(
        _pointer(context), ctypes.c_uint32(ssrc), ctypes.byref(found)
    )
    if status != _OK:
        raise KeyError(ssrc)
    return found.value


def set_rollover(context: SrtpContext, ssrc: int, rollover: int) -> None:
    """Have the stream's next packet taken as one of that round; KeyError: no such stream."""
    status = _library.srtp_set_stream_roc(
        _pointer(context), ctypes.c_uint32(ssrc), ctypes.c_uint32(rollover)
    )
    if status != _OK:
        raise KeyError(ssrc)
