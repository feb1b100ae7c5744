"""What Tab offers, in real shells."""

import os
import select
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support import layers as say
from tests.support.commands import needs, run
from tests.support.images import add_image
from tests.support.mounts import mounted, needs_fuse

ROOT = Path(__file__).parent.parent.parent
LAYER = say.layer(
    say.dir_("etc"),
    say.file("etc/hosts", b"x"),
    say.file("etc/hosts with spaces", b"x"),
    say.file("etc/$(touch harm)", b"x"),
    say.file("etc/\x1b[31mred", b"x"),
    say.dir_("etc/init.d"),
    say.symlink("conf", "etc"),
)

Ask = Callable[[str], list[str]]

# What bash does when Tab is pressed; the colon is among its word breaks, so names are cut there.
BASH = """\
source <(imagefs completion bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
_python_argcomplete imagefs
printf '%s\\n' "${COMPREPLY[@]}"
"""
BASH_IN_TERMINAL = b"""\
source <(imagefs completion bash); show() { echo "<<$READLINE_LINE"">>"; }; bind -x '"\\C-x": show'; echo REA''DY
"""
FISH = "imagefs completion fish | source; complete -C $argv[1]"
# A shell in a terminal of its own, into which the line is typed, and Tab, and a command that prints what came of it.
ZSH = """\
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'autoload -Uz compinit; compinit -u -D; source <(imagefs completion zsh)'
zpty -w z 'show() { print -r -- "<<$BUFFER>>"; BUFFER=; exit }; zle -N show; bindkey "^X" show; print REA''DY'
zpty -r z line '*READY*'
zpty -w -n z "$1"$'\\t'$'\\x18'
zpty -r z line '*<<*>>*'
print -r -- "${${line##*<<}%%>>*}"
zpty -d z
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store, the program, and where files are completed."""
    folder = tmp_path_factory.mktemp("completion")
    program = folder / "bin/imagefs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m imagefs "$@"\n')
    program.chmod(0o755)
    with Store.open(folder / "store", create=True) as store:
        add_image(store, [LAYER], "alpine:3.19")
        add_image(store, [LAYER, say.layer(say.file("new", b""))], "alpine:3.20", "localhost:5000/team/app:v1")
    (folder / "here").mkdir()
    (folder / "here/archive.tar").touch()
    (folder / "here/arch").mkdir()
    return folder


@pytest.fixture
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IMAGEFS_STORE", str(folder / "store"))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.chdir(folder / "here")


@pytest.fixture
def bash(environment: None) -> Ask:
    def ask(line: str) -> list[str]:
        done = run(["bash", "--norc", "-c", BASH, "bash", line])
        assert done.stderr == ""
        # Here, where readline is not waiting, argcomplete itself ends what is the only one with a space.
        return sorted(word.removesuffix(" ") for word in done.stdout.split("\n")[:-1])

    return ask


def test_bash_knows_for_what_the_script_is(environment: None) -> None:
    done = run(["bash", "--norc", "-c", "source <(imagefs completion bash); complete -p imagefs"])
    assert done.stdout.endswith("-F _python_argcomplete imagefs\n")


def test_commands_are_offered(bash: Ask) -> None:
    assert {"pull", "mount", "umount", "completion"} <= set(bash("imagefs "))
    assert bash("imagefs umo") == ["umount"]


def test_options_are_offered_once_a_hyphen_is_there(bash: Ask) -> None:
    assert {"--format", "--sort", "--digests"} <= set(bash("imagefs ls --"))
    assert not [word for word in bash("imagefs inspect ") if word.startswith("-")]


def test_values_of_options_are_offered(bash: Ask) -> None:
    assert bash("imagefs ls --sort ") == ["created", "id", "repository", "size", "tag"]
    assert bash("imagefs completion ") == ["bash", "fish", "zsh"]


def test_images_are_offered_up_to_their_colon_and_behind_it(bash: Ask) -> None:
    assert bash("imagefs inspect ") == ["alpine:3.19", "alpine:3.20", "localhost:5000/team/app:v1"]
    assert bash("imagefs inspect alpine:3") == ["3.19", "3.20"]
    assert bash("imagefs rm localhost:50") == ["5000/team/app:v1"]
    assert bash("imagefs tags l") == ["localhost:5000/team/app"]


def test_paths_in_an_image_are_offered_one_component_at_a_time(bash: Ask) -> None:
    assert bash("imagefs cat alpine:3.20 ") == ["conf", "etc/", "new"]
    assert bash("imagefs cat alpine:3.20 /et") == ["/etc/"]
    assert bash("imagefs cat alpine:3.20 conf/in") == ["conf/init.d/"]
    assert bash("imagefs diff alpine:3.19 alpine:3.20 etc/h") == ["etc/hosts"]


def test_an_image_then_a_path_in_it_are_offered_where_both_are_one_word(bash: Ask) -> None:
    assert bash("imagefs cp localhost:5000/te") == ["5000/team/app:v1:/"]
    assert bash("imagefs cp alpine:3.20:/etc/ho") == ["/etc/hosts"]
    assert bash("imagefs cp alpine:3.20:/etc/hosts ar") == ["arch/", "archive.tar"]


def test_names_in_an_image_that_a_shell_or_a_terminal_would_understand_are_not_offered(bash: Ask) -> None:
    assert bash("imagefs cat alpine:3.20 etc/") == ["etc/hosts", "etc/init.d/"]


def test_files_and_folders_are_offered_where_they_are_wanted(bash: Ask) -> None:
    assert bash("imagefs load ar") == ["arch/", "archive.tar"]
    assert bash("imagefs mount alpine:3.20 ar") == ["arch/"]
    assert bash("imagefs --store ar") == ["arch/"]


def test_mount_options_are_offered_behind_each_comma(bash: Ask) -> None:
    assert bash("imagefs mount -o allow_other,sym") == ["allow_other,symlinks="]


@needs_fuse[0]
@needs_fuse[1]
def test_mount_points_are_offered_to_be_unmounted(bash: Ask, folder: Path, tmp_path: Path) -> None:
    with mounted(folder / "store", tmp_path / "images"):
        assert bash(f"imagefs umount {tmp_path}") == [f"{tmp_path}/images"]
        assert bash(f"imagefs remount {tmp_path}") == [f"{tmp_path}/images"]
    assert bash(f"imagefs umount {tmp_path}") == [""]


def test_nothing_is_offered_and_nothing_said_or_made_where_there_is_no_store(
    bash: Ask, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEFS_STORE", str(folder / "nowhere"))
    assert bash("imagefs inspect ") == [""]
    assert bash("imagefs cat alpine:3.20 ") == [""]
    assert not (folder / "nowhere").exists()


def test_nothing_is_offered_and_nothing_said_where_the_image_is_not_there(bash: Ask) -> None:
    assert bash("imagefs cat nothing:1 ") == [""]


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("imagefs inspect alp", "imagefs inspect alpine:3."),
        ("imagefs inspect localhost:5", "imagefs inspect localhost:5000/team/app:v1 "),
        ("imagefs cat alpine:3.20 et", "imagefs cat alpine:3.20 etc/"),
        ("imagefs mount -o sym", "imagefs mount -o symlinks="),
    ],
)
def test_bash_in_a_terminal_completes_what_is_typed(environment: None, typed: str, completed: str) -> None:
    terminal, inner = os.openpty()
    argv = ["bash", "--norc", "--noprofile", "-i"]
    with subprocess.Popen(argv, stdin=inner, stdout=inner, stderr=inner, start_new_session=True) as shell:
        os.close(inner)
        os.write(terminal, BASH_IN_TERMINAL)
        said = read_until(terminal, b"READY")
        os.write(terminal, f"{typed}\t\x18".encode())
        said = read_until(terminal, b">>")
        os.write(terminal, b"\x15exit\n")
        shell.wait(timeout=20)
    os.close(terminal)
    assert said.rpartition(b"<<")[2].partition(b">>")[0].decode() == completed


def read_until(terminal: int, mark: bytes) -> bytes:
    said = b""
    while mark not in said:
        ready, _, _ = select.select([terminal], [], [], 30)
        assert ready, f"nothing more came after {said!r}"
        said += os.read(terminal, 4096)
    return said


@needs("fish")
def test_fish_offers_commands_options_images_and_paths(environment: None) -> None:
    def ask(line: str) -> list[str]:
        done = run(["fish", "--no-config", "-c", FISH, line])
        assert done.stderr == ""
        return done.stdout.splitlines()

    assert "--digests\talso print what each tag pointed to in its registry" in ask("imagefs ls --")
    assert ask("imagefs umo")[0].startswith("umount\t")
    assert ask("imagefs inspect alpine:") == ["alpine:3.19", "alpine:3.20"]
    assert ask("imagefs cat alpine:3.20 etc/") == ["etc/hosts", "etc/init.d/"]


@needs("zsh")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("imagefs ls --dig", "imagefs ls --digests "),
        ("imagefs inspect localhost:5", "imagefs inspect localhost:5000/team/app:v1 "),
        ("imagefs cat alpine:3.20 etc/ho", "imagefs cat alpine:3.20 etc/hosts "),
    ],
)
def test_zsh_completes_what_is_typed(environment: None, typed: str, completed: str) -> None:
    assert run(["zsh", "-f", "-c", ZSH, "zsh", typed]).stdout.rstrip("\n") == completed
