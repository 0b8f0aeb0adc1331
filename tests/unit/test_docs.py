"""The documents say what is: their counters, metrics, flags and links, held against the code."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from turnout.cli import call, config, doctor, down, drain, run, status, undrain, units

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([PROJECT / "README.md", PROJECT / "CHANGELOG.md", *PROJECT.glob("docs/**/*.md")])
OPERATIONS = PROJECT / "docs" / "operations.md"
COMMANDS = {
    "run": run,
    "down": down,
    "status": status,
    "drain": drain,
    "undrain": undrain,
    "doctor": doctor,
    "call": call,
    "config": config,
    "units": units,
}

# family__reason as it stands in `struct counters`; two underscores are in no other word.
COUNTER = re.compile(r"\b([a-z]+__[a-z_]+)\b")
METRIC = re.compile(r"\bturnout_[a-z_]+")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
CODE = re.compile(r"```[a-z]*\n(.*?)```|`([^`\n]+)`", re.DOTALL)

documents = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(one.relative_to(PROJECT)) for one in DOCUMENTS]
)


def fields_of(struct: str) -> list[str]:
    """Return the fields of a struct of u64 in bpf/abi.h."""
    text = (PROJECT / "bpf" / "abi.h").read_text()
    body = re.search(rf"^struct {struct} \{{\n(.*?)^\}};", text, re.DOTALL | re.MULTILINE)
    assert body is not None
    return re.findall(r"^\t__u64 (\w+);", body[1], re.MULTILINE)


def kernel_metrics() -> set[str]:
    families = {name.partition("__")[0] for name in fields_of("counters")}
    owners = {f"turnout_owner_{name}_total" for name in fields_of("owner_counters")}
    counted = {"swept": "flows"}
    return {f"turnout_{one}_{counted.get(one, 'packets')}_total" for one in families} | owners


def agent_metrics() -> set[str]:
    """Return the names that metrics.py writes out; a counter's gets _total when it is shown."""
    text = (PROJECT / "agent" / "turnout" / "metrics.py").read_text()
    found = re.findall(r'(Counter|Gauge)MetricFamily\(\s*"(turnout_\w+)"', text)
    return {f"{name}_total" if kind == "Counter" else name for kind, name in found}


def code_of(document: Path) -> Iterator[str]:
    """Every line of code in a document, inline and in blocks."""
    for block, inline in CODE.findall(document.read_text()):
        yield from (block or inline).splitlines()


def commands_in(document: Path) -> Iterator[tuple[str, list[str]]]:
    """Every `turnout COMMAND ...` in a document's code: command and arguments."""
    for line in code_of(document):
        words = shlex.split(line, comments=True) if "turnout" in line.split("#")[0] else []
        for index, word in enumerate(words[:-1]):
            if word == "turnout" and words[index + 1] in COMMANDS:
                yield words[index + 1], words[index + 2 :]


def flags_of(command: str) -> set[str]:
    subparsers = argparse.ArgumentParser().add_subparsers()
    COMMANDS[command].add_parser(subparsers)
    actions = subparsers.choices[command]._actions
    shown = [action for action in actions if action.help != argparse.SUPPRESS]
    return {flag for action in shown for flag in action.option_strings} - {"-h", "--help"}


def anchors_of(document: Path) -> set[str]:
    """Return the anchors GitHub makes of a document's headings."""
    words = (
        re.sub(r"[^\w\- ]", "", text.lower()) for text in HEADING.findall(document.read_text())
    )
    return {text.strip().replace(" ", "-") for text in words}


def test_operations_explain_every_counter_of_the_abi_and_no_other() -> None:
    text = OPERATIONS.read_text()
    told = set(COUNTER.findall(text)) | {"received"}
    assert told == set(fields_of("counters"))
    rows = [name for name in fields_of("counters") if f"| `{name}` |" in text]
    assert rows == fields_of("counters")
    for name in fields_of("owner_counters"):
        assert f"`{name}`" in text


@documents
def test_counters_that_a_document_names_exist(document: Path) -> None:
    assert set(COUNTER.findall(document.read_text())) <= set(fields_of("counters"))


def test_operations_name_every_metric() -> None:
    told = set(METRIC.findall(OPERATIONS.read_text()))
    assert told == kernel_metrics() | agent_metrics()


@documents
def test_relative_links_of_a_document_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), target


@documents
def test_flags_that_a_document_gives_to_a_command_exist(document: Path) -> None:
    for command, arguments in commands_in(document):
        flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        assert flags <= flags_of(command), (command, arguments)


@documents
def test_scripts_that_a_document_names_exist(document: Path) -> None:
    named = set(re.findall(r"\bscripts/[\w/-]+", document.read_text()))
    assert [name for name in sorted(named) if not (PROJECT / name).exists()] == []


def test_documents_show_every_command() -> None:
    shown = {command for document in DOCUMENTS for command, _ in commands_in(document)}
    assert shown == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_operations_name_every_flag_of_a_command(command: str) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", OPERATIONS.read_text()))
    assert flags_of(command) <= named


def test_defaults_in_operations_are_those_of_the_help() -> None:
    row = re.compile(r"^\| `(--[a-z-]+)[^`]*` \| `?([\w./:-]+)`? \|", re.MULTILINE)
    rows = dict(row.findall(OPERATIONS.read_text()))
    parser = argparse.ArgumentParser().add_subparsers()
    run.add_parser(parser)
    helps = {
        action.option_strings[0]: action.help or "" for action in parser.choices["run"]._actions
    }
    stated = {
        flag: default[1]
        for flag, text in helps.items()
        if (default := re.search(r"\(default: ([\w./:-]+)\)", text))
    }
    assert stated
    assert {flag: rows.get(flag) for flag in stated} == stated


def test_images_of_documents_are_well_formed() -> None:
    images = sorted(PROJECT.glob("docs/img/*.svg"))
    assert images
    for image in images:
        root = ET.parse(image).getroot()
        assert root.tag.endswith("svg")
        assert root.get("viewBox")
