"""The log: text or JSON, and what is said again is counted."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from turnout.logs import TEXTS_MOST, CountingHandler, JsonFormatter, set_log_level, set_up_logs


def record(
    text: str, at: float, level: int = logging.WARNING, **extra: object
) -> logging.LogRecord:
    made = logging.LogRecord("turnout.edge", level, __file__, 1, text, None, None)
    made.created = at
    made.__dict__.update(extra)
    return made


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def handler(stream: io.StringIO) -> CountingHandler:
    return CountingHandler(stream, repeat_s=30)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Return the root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_counting_handler_same_warning_is_written_once_and_its_count_when_the_while_is_over(
    handler: CountingHandler, stream: io.StringIO
) -> None:
    for at in (0, 1, 29):
        handler.handle(record("no room", at))
    handler.handle(record("other", 20))
    handler.handle(record("all is well", 31, logging.INFO))

    assert stream.getvalue().splitlines() == [
        "no room",
        "other",
        "no room (2 more times in 30 s)",
        "all is well",
    ]


def test_counting_handler_warning_after_the_while_is_written_again(
    handler: CountingHandler, stream: io.StringIO
) -> None:
    handler.handle(record("no room", 0))
    handler.handle(record("no room", 31))

    assert stream.getvalue().splitlines() == ["no room", "no room"]


def test_counting_handler_close_tells_what_was_counted(
    handler: CountingHandler, stream: io.StringIO
) -> None:
    handler.handle(record("no room", 0))
    handler.handle(record("no room", 1))
    handler.close()

    assert stream.getvalue().splitlines() == ["no room", "no room (1 more times in 30 s)"]


def test_counting_handler_information_is_never_counted(
    handler: CountingHandler, stream: io.StringIO
) -> None:
    for at in range(3):
        handler.handle(record("a session", at, logging.INFO))

    assert len(stream.getvalue().splitlines()) == 3


def test_counting_handler_flood_of_different_texts_is_bounded(
    handler: CountingHandler, stream: io.StringIO
) -> None:
    handler.handle(record("first", 0))
    handler.handle(record("first", 0))
    for number in range(TEXTS_MOST):
        handler.handle(record(f"text {number}", 0))

    assert len(handler._said) == TEXTS_MOST
    assert "first (1 more times in 30 s)" in stream.getvalue()


def test_json_formatter_writes_one_object_with_what_the_line_says() -> None:
    made = logging.LogRecord(
        "turnout.edge", logging.WARNING, __file__, 1, 'VIP "%s"\n%d', ("fd00::1", 2), None
    )
    made.created = 1.5

    line = JsonFormatter("agent").format(made)

    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "process": "agent",
        "level": "warning",
        "logger": "turnout.edge",
        "message": 'VIP "fd00::1"\n2',
    }


def test_json_formatter_exception_is_in_the_object() -> None:
    made = record("failed", 0, logging.ERROR, exc_info=(ValueError, ValueError("broken"), None))

    assert "ValueError: broken" in json.loads(JsonFormatter("agent").format(made))["exception"]


def test_set_up_logs_text_is_headed_by_the_process(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logs("100%", "warning")
    logging.getLogger("turnout.x").info("not said")
    logging.getLogger("turnout.x").warning("said")

    assert capsys.readouterr().err.endswith(" 100% WARNING said\n")


def test_set_log_level_changes_what_is_said(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logs("agent", "warning", as_json=True)
    set_log_level("debug")
    logging.getLogger("turnout.x").debug("said")

    assert json.loads(capsys.readouterr().err)["message"] == "said"
