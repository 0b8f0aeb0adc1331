"""What stays open until it is closed: `with` closes it."""

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Has `close`, and is a context manager by it."""

    @abstractmethod
    def close(self) -> None:
        """Close it; once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
