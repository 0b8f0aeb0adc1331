"""Files that are there whole or not at all."""

from pathlib import Path

from turnout.files import write_whole


def test_write_whole_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("before, and longer")
    before = path.open()

    write_whole(path, "after")

    assert path.read_text() == "after"
    with before:
        assert before.read() == "before, and longer"
    assert list(tmp_path.iterdir()) == [path]


def test_write_whole_mode_holds_whatever_a_killed_writer_left(tmp_path: Path) -> None:
    path = tmp_path / "secret.json"
    path.with_suffix(".part").write_text("half")

    write_whole(path, "all", mode=0o600)

    assert path.read_text() == "all"
    assert path.stat().st_mode & 0o777 == 0o600
