"""Files that are there whole or not at all."""

from pathlib import Path


def write_whole(path: Path, text: str, *, mode: int = 0o666) -> None:
    """Write a file in one piece: who reads it meanwhile finds what stood there before.

    `mode`, less the umask, holds from its first byte on.
    """
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=mode)
    part.write_text(text, encoding="utf-8")
    part.replace(path)
