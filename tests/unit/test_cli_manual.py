"""Manual pages: complete, true to the parser, and free of complaints of those who render them."""

import re
import subprocess
from pathlib import Path

import pytest

from imagefs.cli import manual, roff
from imagefs.cli.exit_codes import EXIT_CODES
from imagefs.cli.main import parser
from imagefs.mount import options
from imagefs.mount.option_table import MOUNT_OPTIONS
from tests.support.commands import imagefs, needs

ROOT = Path(__file__).parent.parent.parent
PAGES = {"imagefs": manual.imagefs_page, "mount.imagefs": manual.mount_helper_page}
JUDGES = {
    "groff": ["groff", "-man", "-Tutf8", "-ww", "-z"],
    "mandoc": ["mandoc", "-T", "lint", "-W", "style"],
    "man": ["man", "--warnings", "-l", "-"],
}


def rendered(page: str) -> str:
    """Return *page* as a reader sees it, without the marks for bold and underlined, in one line."""
    done = subprocess.run(
        ["mandoc", "-T", "utf8", "-O", "width=200"], input=page, capture_output=True, text=True, check=True
    )
    return " ".join(re.sub(".\b", "", done.stdout).split())


@pytest.mark.parametrize("judge", [pytest.param(name, marks=needs(name)) for name in JUDGES])
@pytest.mark.parametrize("page", PAGES)
def test_nobody_who_renders_a_page_complains(page: str, judge: str) -> None:
    done = subprocess.run(JUDGES[judge], input=PAGES[page](), capture_output=True, text=True, check=False)
    complaints = done.stderr if judge == "man" else done.stdout + done.stderr
    assert (done.returncode, complaints) == (0, "")


@needs("mandoc")
def test_a_judge_complains_of_a_page_that_is_wrong() -> None:
    wrong = PAGES["imagefs"]().replace(".SH", ".SHH", 1)
    done = subprocess.run(JUDGES["mandoc"], input=wrong, capture_output=True, text=True, check=False)
    assert "unknown macro" in done.stdout


@needs("mandoc")
def test_every_command_and_every_option_is_in_the_manual() -> None:
    text = rendered(manual.imagefs_page())
    for name, command in roff.subcommands(parser()).items():
        assert f" imagefs {name} " in text
        for action in command._actions:
            assert all(flag in text for flag in action.option_strings if flag != "-h")
        assert " ".join((command.description or "missing").split()) in text


@needs("mandoc")
def test_every_exit_status_is_in_the_manual() -> None:
    text = rendered(manual.imagefs_page())
    for code, meaning in EXIT_CODES:
        assert f" {code} {meaning} " in text


def test_every_environment_variable_that_is_read_is_in_the_manual() -> None:
    said = {name for names, _ in manual.ENVIRONMENT for name in names.split(", ")}
    read: set[str] = set()
    for path in (ROOT / "imagefs").rglob("*.py"):
        source = path.read_text()
        read |= set(re.findall(r'environ\.get\(\s*"(\w+)"', source)) | set(
            re.findall(r'VARIABLE = "([A-Z]\w+)"', source)
        )
    assert {"IMAGEFS_STORE", "DOCKER_CONFIG", "DOCKER_DEFAULT_PLATFORM"} <= read
    assert read - said - {"SOURCE_DATE_EPOCH"} == set()


def test_every_mount_option_is_described_and_takes_a_value_where_it_says_so() -> None:
    said = {word for words, _ in MOUNT_OPTIONS for word in words}
    with_value = {f"{name}=" for name in options._WITH_VALUE}
    # These two are only there to be refused, or for mount(8).
    flags = set(options._FLAGS) - {"rw", "remount"}
    assert said == with_value | flags


@needs("mandoc")
def test_text_that_means_something_to_roff_is_shown_as_it_is() -> None:
    page = roff.Page("x", 1, "2024-01-02", "x")
    page.section("NAME")
    page.paragraph(".hidden 'quoted' \\fBnot bold\\fR … -- ~ ^ ` \" É")
    page.literal(".hidden too\n'and this\n\\n(xx")
    text = rendered(page.text())
    assert ".hidden 'quoted' \\fBnot bold\\fR … -- ~ ^ ` \" É .hidden too 'and this \\n(xx" in text


def test_a_page_bears_the_day_that_a_reproducible_build_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert manual.imagefs_page().startswith('.TH IMAGEFS 1 1970-01-02 "imagefs ')


def test_the_command_prints_the_page_that_is_asked_for() -> None:
    assert imagefs("manual").stdout == manual.imagefs_page()
    assert imagefs("manual", "mount.imagefs").stdout == manual.mount_helper_page()
    assert imagefs("manual", "nothing", check=False).returncode == 2
