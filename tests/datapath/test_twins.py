"""The C code and its Python twin, fed the same vectors."""

import packets as p
import pytest

from datapath import Datapath


@pytest.mark.parametrize("length", [4, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 128, 255, 256])
def test_siphash_of_a_ufrag_is_the_same_in_c_and_python(datapath: Datapath, length: int) -> None:
    """The session is stored under Python's hash and found under C's."""
    ufrag = ("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/" * 4)[:length]
    datapath.add_session(ufrag)
    outcome = datapath.receive(bytes(p.ip4(p.check(f"{ufrag}:client"))))
    assert outcome.counted == {"received": 1, "steered__stun_request": 1, "flow__learned": 1}


@pytest.mark.parametrize("longer_first", [True, False])
def test_bytes_of_the_last_ufrag_do_not_leak_into_the_next(
    datapath: Datapath, longer_first: bool
) -> None:
    """The work buffer is not cleared between packets."""
    ufrags = ["abcdefghijklmnopqrstuvwx", "abcde"]
    for ufrag in ufrags if longer_first else reversed(ufrags):
        datapath.add_session(ufrag)
        counted = datapath.receive(bytes(p.ip4(p.check(f"{ufrag}:c")))).counted
        assert counted["steered__stun_request"] == 1
