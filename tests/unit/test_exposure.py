import pytest

from turnout.errors import SettingsError
from turnout.exposure import check_exposure


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "203.0.113.9", "8.8.8.8", "2a00:1450::1"])
def test_public_door_needs_a_token_or_open(host: str) -> None:
    public = host != "203.0.113.9"  # a documentation address is nobody's
    check_exposure(host, token="secret", is_open=False)
    check_exposure(host, token="", is_open=True)
    if public:
        with pytest.raises(SettingsError, match="--open") as refused:
            check_exposure(host, token="", is_open=False)
        assert host in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "10.0.0.5", "192.168.1.1", "fd00::1"])
def test_private_door_may_stand_open(host: str) -> None:
    check_exposure(host, token="", is_open=False)
