"""Nothing that an image, archive or registry says reaches a terminal raw, from any command."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from imagefs.cli.main import main, parser
from imagefs.mount import daemon
from tests.support.commands import imagefs, needs, run
from tests.support.deceptive import (
    CREATED_BY,
    DECEPTION,
    HUNK,
    NAME,
    deceptive_layout,
    json_values,
    on_terminal,
    raw_characters,
)
from tests.support.registry import Handler, Registry

_FIELDS = ("Repository", "Labels", "CreatedAt")
# What each command is run with; "%" is a registry, "@" a folder for output.
LINES: dict[str, tuple[tuple[str, ...], ...]] = {
    "ls": (
        (),
        ("--format", "json"),
        ("--format", "".join(f"{{{{.{field}}}}}\t" for field in _FIELDS)),
        ("--format", "table {{.Labels}}"),
        ("app:1", "/etc"),
        ("-l", "app:1", "/etc"),
        ("app:1", NAME, f"/no{DECEPTION}"),
        (f"no{DECEPTION}",),
    ),
    "inspect": (
        ("app:1",),
        ("--format", "json", "app:1"),
        ("--format", "{{.}} {{json .Config}} {{.Config.Labels}} {{range .Config.Env}}{{println .}}{{end}}", "app:1"),
        ("--format", '{{printf "%s %q" .Author .Created}} {{join .Config.Cmd ","}} {{upper .Author}}', "app:1"),
        ("--format", f"{{{{.{DECEPTION}}}}}", "app:1"),
        (f"app:{DECEPTION}",),
    ),
    "history": (
        ("app:2",),
        ("--no-trunc", "app:2"),
        ("--human=false", "app:2"),
        ("--format", "json", "app:2"),
        ("--format", "{{.CreatedBy}} {{.CreatedAt}} {{.CreatedSince}} {{.Comment}}", "app:2"),
    ),
    "diff": (
        ("app:1", "app:2"),
        ("--stat", "--config", "--layers", "app:1", "app:2"),
        ("--json", "--config", "app:1", "app:2"),
        ("--name-only", "app:1", "app:2"),
        ("--ignore", DECEPTION, "app:1", "app:2"),
        ("app:1", "app:2", f"/no{DECEPTION}"),
    ),
    "blame": (
        ("app:2", NAME, "/etc/conf"),
        ("--no-trunc", "app:2", NAME),
        ("--json", "app:2", NAME),
        ("app:2", f"/no{DECEPTION}"),
    ),
    "find": (("app:1",), ("app:1", "-ls"), ("app:1", "--json"), ("app:1", f"/etc/no{DECEPTION}")),
    "tree": (("app:1",),),
    "cat": (("app:1", f"/no{DECEPTION}"), ("app:1", os.path.dirname(NAME))),
    "cp": (("app:1:/etc", "@"), (f"app:1:/no{DECEPTION}", "@")),
    "export": ((f"app:1{DECEPTION}",),),
    "save": ((f"app:1{DECEPTION}",),),
    "load": (("--name", f"x{DECEPTION}", "@"), (f"@/no{DECEPTION}",)),
    "pull": ((f"%/app:{DECEPTION}",), ("%/app:1",)),
    "tags": (("%/app",), ("--json", "%/app"), ("%/missing",)),
    "search": (("%/app",), ("--json", "%/app"), ("--format", "{{.Name}} {{.Description}}", "%/app")),
    "tag": (("app:1", f"new{DECEPTION}"), (f"old{DECEPTION}", "new")),
    "untag": ((f"no{DECEPTION}",),),
    "rm": ((f"no{DECEPTION}",),),
    "exists": ((f"no{DECEPTION}",),),
    "init": (("--group", f"no{DECEPTION}"),),
    "prune": (("--dry-run",), ("--all", "--dry-run"), ("--filter", DECEPTION)),
    "df": ((), ("--json",)),
    "verify": ((), ("--json",), (f"no{DECEPTION}",)),
    "info": ((), ("--json",), ("--format", "{{.Store}}")),
    "mount": (("-o", DECEPTION, "/mnt"), (f"no{DECEPTION}", "@")),
    "umount": ((f"@/no{DECEPTION}",),),
    "remount": ((f"@/no{DECEPTION}",),),
    "mounts": ((), ("--json",)),
    "completion": (("bash",), (DECEPTION,)),
    "manual": ((), (DECEPTION,)),
}
_ALIASES = {"images", "rmi"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deceptive")
    done = imagefs("--store", folder / "store", "load", "--name", "app", deceptive_layout(folder / "layout"))
    assert raw_characters((done.stdout + done.stderr).encode("utf-8", "surrogateescape")) == []
    return folder / "store"


def _error(handler: Handler) -> bool:
    error = {"errors": [{"code": "DENIED", "message": f"go\n away{DECEPTION}", "detail": DECEPTION}]}
    handler.answer(403, json.dumps(error).encode(), {"Content-Type": "application/json"})
    return True


def _repositories(handler: Handler) -> bool:
    found = {"repositories": ["app", f"app{DECEPTION}"]}
    handler.answer(200, json.dumps(found).encode(), {"Content-Type": "application/json"})
    return True


def _commands() -> set[str]:
    return {
        name
        for action in parser()._actions
        if isinstance(action.choices, dict)
        for name in action.choices
        if name not in _ALIASES
    }


def test_every_command_is_tried() -> None:
    assert set(LINES) == _commands()


@pytest.mark.parametrize("command", sorted(LINES))
@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_no_character_that_deceives_a_terminal_comes_out(
    command: str, terminal: bool, store: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with Registry() as registry:
        registry.fault("/manifests/", _error, every_time=True)
        registry.fault("/missing/", _error, every_time=True)
        registry.fault("/_catalog", _repositories, every_time=True)
        registry.tags["app"] = ["1", f"2{DECEPTION}"]
        for arguments in LINES[command]:
            filled = [one.replace("%", registry.host) for one in arguments]
            filled = [one.replace("@", str(tmp_path), 1) if one.startswith("@") else one for one in filled]
            line = ("--store", str(store), command, *filled)
            if terminal:
                output = on_terminal(*line)
            else:
                logging.getLogger().handlers.clear()  # those of the line before write to a stream that is closed
                try:
                    main(("--debug", *line))
                except SystemExit:
                    pass
                captured = capfdbinary.readouterr()
                output = captured.out + captured.err
            assert raw_characters(output) == [], line
            # Only a traceback, which --debug asks for, has messages with their newlines.
            assert not terminal or not re.search(rb"^forged", output, re.MULTILINE), line


@pytest.mark.parametrize(
    "line",
    [
        ("inspect", "app:2"),
        ("inspect", "--format", "json", "app:2"),
        ("inspect", "--format", "{{json .}}", "app:2"),
        ("inspect", "--config", "app:2"),
        ("history", "--format", "json", "app:2"),
        ("ls", "--format", "json"),
    ],
)
def test_json_is_escaped_and_has_equal_values(line: tuple[str, ...], store: Path) -> None:
    piped = imagefs("--store", store, *line).stdout.encode("utf-8", "surrogateescape")
    shown = on_terminal("--store", store, *line)
    assert json_values(piped) == json_values(shown)
    assert json.dumps(DECEPTION)[1:-1] in json.dumps(json_values(piped))
    assert raw_characters(shown) == []


def test_documents_are_exact_in_a_pipe_and_escaped_on_a_terminal(store: Path) -> None:
    exact = imagefs("--store", store, "inspect", "--config", "app:2").stdout
    assert json.loads(exact)["author"] == DECEPTION
    assert raw_characters(on_terminal("--store", store, "inspect", "--config", "app:2")) == []


def test_the_headers_of_a_unified_diff_are_quoted_and_its_lines_are_exact(store: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imagefs", "--store", store, "diff", "-u", "app:1", "app:2"],
        capture_output=True,
        check=False,
    )
    lines = done.stdout.split(b"\n")
    headers = [line for line in lines if line.startswith((b"--- ", b"+++ "))]
    assert len(headers) == 6
    assert all(raw_characters(line) == [] for line in headers)
    assert b"+evil" not in lines
    assert b'+++ "app:2/etc/' + HUNK.encode().replace(b"\n", b"\\n") + b'"' in lines
    assert f"+two{DECEPTION}".encode().split(b"\n")[0] in lines
    assert raw_characters(on_terminal("--store", store, "diff", "-u", "app:1", "app:2")) == []


@needs("patch")
def test_patch_reads_quoted_headers(store: Path, tmp_path: Path) -> None:
    imagefs("--store", store, "cp", "app:1:/etc", tmp_path / "etc")
    patch = subprocess.run(
        [sys.executable, "-m", "imagefs", "--store", store, "diff", "-u", "app:1", "app:2", "/etc/conf"],
        capture_output=True,
        check=False,
    ).stdout
    (tmp_path / "p").write_bytes(patch.split(b"\n", 1)[1])
    run(["patch", "-d", tmp_path, "-p1", "-i", "p"])
    assert (tmp_path / "etc" / "conf").read_bytes() == f"two{DECEPTION}\n".encode()


def test_data_stays_exact(store: Path) -> None:
    def output(*line: str) -> bytes:
        return subprocess.run(
            [sys.executable, "-m", "imagefs", "--store", store, *line], capture_output=True, check=False
        ).stdout

    assert output("cat", "app:1", "/etc/conf") == f"one{DECEPTION}\n".encode()
    assert os.fsencode(NAME) in output("find", "app:1", "-print0").split(b"\0")
    assert os.fsencode(NAME)[1:] in output("diff", "--name-only", "-z", "app:1", "app:2").split(b"\0")


def test_values_of_templates_forge_no_line_and_templates_may_break_lines(store: Path) -> None:
    form = "{{.Repository}} {{.Labels}}"
    assert len(imagefs("--store", store, "ls", "--format", form, "app:1").stdout.split("\n")) == 2
    done = imagefs("--store", store, "inspect", "--format", '{{join .Config.Cmd "\n"}}{{println .Author}}end', "app:1")
    assert done.stdout.split("\n")[1:] == ["end", ""]


def test_lines_of_a_log_file_are_escaped(tmp_path: Path) -> None:
    daemon.log_to(tmp_path / "log")
    logging.getLogger("imagefs").error("%s failed", DECEPTION)
    try:
        raise ValueError(DECEPTION)
    except ValueError:
        logging.getLogger("imagefs").exception("serving failed")
    for handler in logging.getLogger().handlers:
        handler.close()
    log = (tmp_path / "log").read_bytes()
    assert raw_characters(log) == []
    assert len(re.findall(rb"^\d{4}-", log, re.MULTILINE)) == 2


def test_completion_offers_no_name_that_deceives(store: Path, tmp_path: Path) -> None:
    line = "imagefs cat app:1 /etc/"
    environment = {
        **os.environ,
        "_ARGCOMPLETE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "offers"),
        "IMAGEFS_STORE": str(store),
    }
    subprocess.run([sys.executable, "-m", "imagefs"], env=environment, check=False)
    offers = (tmp_path / "offers").read_bytes()
    assert b"/etc/conf" in offers
    assert raw_characters(offers.replace(b"\x0b", b"\n")) == []


def test_history_shows_the_whole_instruction_escaped(store: Path) -> None:
    out = imagefs("--store", store, "history", "--no-trunc", "app:2").stdout
    assert "RUN \\x1b[31m\\x07" in out
    assert CREATED_BY.endswith("end")
