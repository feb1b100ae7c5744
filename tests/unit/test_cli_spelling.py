"""Spellings of docker and podman, help and version."""

import pytest

from imagefs.cli.main import main, parser
from imagefs.cli.spelling import ABSENT, IMAGE_COMMANDS, respelled
from imagefs.text import did_you_mean


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("", "--help"),
        ("--store /x", "--store /x --help"),
        ("--debug", "--debug --help"),
        ("--trust-store help pull", "--trust-store pull --help"),
        ("help", "--help"),
        ("help pull", "pull --help"),
        ("help image ls", "ls --help"),
        ("--store /x help pull", "--store /x pull --help"),
        ("version", "--version"),
        ("-v", "--version"),
        ("--store=/x -v", "--store=/x --version"),
        ("image", "--help"),
        ("image --help", "--help"),
        ("image ls -q alpine", "ls -q alpine"),
        ("image remove x", "rm x"),
        ("image unmount x", "umount x"),
        ("image frob", "image frob"),
        ("pull help", "pull help"),
        ("ls image version", "ls image version"),
        ("--help", "--help"),
        ("--store", "--store --help"),
    ],
)
def test_spellings(words: str, meaning: str) -> None:
    assert " ".join(respelled(words.split())) == meaning


def commands() -> set[str]:
    return {name for action in parser()._actions if isinstance(action.choices, dict) for name in action.choices}


def test_image_commands_exist_and_absent_ones_do_not() -> None:
    assert set(IMAGE_COMMANDS.values()) <= commands()
    assert not ABSENT.keys() & commands()


@pytest.mark.parametrize("words", [[], ["help"], ["help", "pull"], ["version"], ["-v"], ["image"]])
def test_help_and_version_go_to_standard_output(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(("usage: imagefs", "imagefs 0."))
    assert err == ""


@pytest.mark.parametrize("command", sorted(commands()))
def test_abbreviated_options_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--hel"])
    assert ended.value.code == 2
    assert "usage:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "names", "nearest"),
    [
        ("pul", ["pull", "push"], "pull"),
        ("prnue", ["prune", "pull"], "prune"),
        ("run", ["prune", "rm"], None),
        ("-printf", ["-print0", "-perm"], None),
        ("-print1", ["-print0"], None),
        ("--form", ["--filter", "--format"], "--format"),
        ("--fromat", ["--format"], "--format"),
        ("--fo", ["--force"], None),
        ("--forc", ["--format", "--force"], "--force"),
        ("Repositry", ["Repository"], "Repository"),
        ("CreatdSinc", ["CreatedSince"], "CreatedSince"),
        ("REPOSITORY", ["Repository"], "Repository"),
        ("x", ["rm"], None),
        ("", ["a"], None),
    ],
)
def test_only_what_is_near_is_suggested(word: str, names: list[str], nearest: str | None) -> None:
    assert did_you_mean(word, iter(names)) == (f"; did you mean {nearest}?" if nearest else "")
