"""A TLS door whose certificate is renewed under it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509

from turnout.errors import TurnoutError
from turnout.signaling.policy import TlsFiles
from turnout.signaling.tls import TlsDoor
from unit.certificates import write_certificate
from unit.signaling.fake_transceiver import background, until


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    made = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    write_certificate(made, 1)
    return made


@asynccontextmanager
async def serving(door: TlsDoor) -> AsyncIterator[int]:
    async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=door.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def serial_at(port: int, name: str | None = "edge.example") -> int:
    """Shake hands, with or without a server name, and return the certificate's number."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name or ""
    )
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    encoded = tls.getpeercert(binary_form=True)
    writer.close()
    with suppress(ConnectionError, ssl.SSLError):  # the server hangs up as well
        await writer.wait_closed()
    assert encoded is not None
    return x509.load_der_x509_certificate(encoded).serial_number


@pytest.mark.parametrize("name", ["edge.example", None])
async def test_renewed_certificate_is_used_by_the_next_handshake(
    files: TlsFiles, name: str | None
) -> None:
    door = TlsDoor(files)
    async with serving(door) as port:
        assert await serial_at(port, name) == 1
        assert not door.refresh()
        write_certificate(files, 2)
        assert door.refresh()
        assert await serial_at(port, name) == 2


async def test_watch_takes_a_renewed_certificate_by_itself(
    files: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    door = TlsDoor(files)
    caplog.set_level("INFO")
    async with serving(door) as port, background(door.watch(0.01)):
        write_certificate(files, 2)
        await until(lambda: "read anew" in caplog.text)
        assert await serial_at(port) == 2


@pytest.mark.parametrize("fault", ["garbage", "another key", "gone", "passphrase"])
async def test_bad_renewal_keeps_the_old_certificate_and_says_so_once(
    files: TlsFiles, fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    door = TlsDoor(files)
    async with serving(door) as port:
        if fault == "garbage":
            files.cert.write_text("hello")
        elif fault == "another key":
            write_certificate(TlsFiles(files.cert, tmp_path / "other.pem"), 2)
        elif fault == "passphrase":
            write_certificate(files, 2, b"secret")
        else:
            files.key.unlink()
        for _ in range(3):
            assert not door.refresh()
        assert len(caplog.records) == 1
        assert str(files.cert) in caplog.text
        assert await serial_at(port) == 1
        write_certificate(files, 3)
        assert door.refresh()
        assert await serial_at(port) == 3


async def test_other_files_are_used_once_they_can_be(files: TlsFiles, tmp_path: Path) -> None:
    door = TlsDoor(files)
    others = TlsFiles(tmp_path / "other-cert.pem", tmp_path / "other-key.pem")
    async with serving(door) as port:
        door.follow(others)
        assert await serial_at(port) == 1
        write_certificate(others, 2)
        assert door.refresh()
        assert await serial_at(port) == 2


@pytest.mark.parametrize("fault", ["garbage", "gone", "passphrase"])
def test_files_that_cannot_be_used_are_named_at_the_start(files: TlsFiles, fault: str) -> None:
    if fault == "garbage":
        files.key.write_text("hello")
    elif fault == "passphrase":
        write_certificate(files, 2, b"secret")
    else:
        files.cert.unlink()
    with pytest.raises(TurnoutError, match="--tls-cert") as refused:
        TlsDoor(files)
    assert str(files.key) in str(refused.value)
