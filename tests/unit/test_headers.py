"""Which kernel headers are chosen, over trees as Debian's packages lay them out."""

import platform
from pathlib import Path

import pytest

from turnout.errors import HeadersError
from turnout.kernel import headers
from turnout.kernel.headers import Headers, find_headers

PROBE = "include/linux/kconfig.h"
GENERATED = "include/generated/autoconf.h"


@pytest.fixture(autouse=True)
def amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("BCC_KERNEL_SOURCE", raising=False)


def plant(root: Path, *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("")


def find(root: Path) -> Headers:
    return find_headers("6.18.0", root / "modules", root / "src", root / "kheaders.tar.xz")


@pytest.mark.parametrize("flavour", ["amd64", "cloud-amd64", "rt-amd64"])
def test_headers_split_package_is_merged_with_its_common_half(tmp_path: Path, flavour: str) -> None:
    plant(tmp_path / "src/linux-headers-6.1.0-56-common", PROBE)
    plant(tmp_path / f"src/linux-headers-6.1.0-56-{flavour}", GENERATED)

    found = find(tmp_path)

    assert found.tree == headers.CACHE / f"linux-headers-6.1.0-56-{flavour}"
    assert found.source.endswith("with linux-headers-6.1.0-56-common")
    assert not found.exact


def test_headers_of_another_architecture_are_not_taken(tmp_path: Path) -> None:
    for version, machine in (("6.1.0-56", "amd64"), ("6.9.0-1", "arm64")):
        plant(tmp_path / f"src/linux-headers-{version}-common", PROBE)
        plant(tmp_path / f"src/linux-headers-{version}-{machine}", GENERATED)

    assert find(tmp_path).tree == headers.CACHE / "linux-headers-6.1.0-56-amd64"


def test_headers_highest_version_is_a_number_not_a_text(tmp_path: Path) -> None:
    for version in ("6.1.0-9", "6.1.0-56"):
        plant(tmp_path / f"src/linux-headers-{version}-common", PROBE)
        plant(tmp_path / f"src/linux-headers-{version}-amd64", GENERATED)

    assert find(tmp_path).tree == headers.CACHE / "linux-headers-6.1.0-56-amd64"


def test_headers_whole_tree_is_taken_as_it_is(tmp_path: Path) -> None:
    plant(tmp_path / "src/linux-headers-6.5.0-1-generic", PROBE, GENERATED)

    assert find(tmp_path).tree == tmp_path / "src/linux-headers-6.5.0-1-generic"


@pytest.mark.parametrize("part", ["build", "source"])
def test_headers_of_the_running_kernel_come_first(tmp_path: Path, part: str) -> None:
    plant(tmp_path / "src/linux-headers-6.5.0-1-generic", PROBE, GENERATED)
    plant(tmp_path / "modules/6.18.0" / part, PROBE)

    found = find(tmp_path)

    assert (found.tree, found.exact) == (None, True)


def test_headers_kernel_that_carries_its_own_archive_serves(tmp_path: Path) -> None:
    plant(tmp_path, "kheaders.tar.xz")
    assert find(tmp_path).exact


def test_headers_none_names_the_package(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    with pytest.raises(HeadersError, match="apt-get install linux-headers-amd64"):
        find(tmp_path)


def test_headers_given_without_a_tree_in_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path))
    with pytest.raises(HeadersError, match=str(tmp_path)):
        find(tmp_path)
