"""``ls``, ``inspect``, ``tag``, ``rm`` as a user types them."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from imagefs.cli.exit_codes import EXIT_CODES
from imagefs.cli.main import _FAMILIES as FAMILIES
from imagefs.cli.main import _commands as commands_of
from imagefs.cli.main import main, parser
from imagefs.store.store import Store
from tests.support.commands import imagefs, run
from tests.support.images import add_image
from tests.support.layers import file, layer

ONE, TWO = layer(file("one", b"1" * 1000)), layer(file("two", b"2"))
DIGEST = "sha256:" + "e" * 64


class Shell:
    """Runs commands on one store."""

    def __init__(self, store: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.store = store
        self._capsys = capsys

    def __call__(self, *args: str) -> tuple[int, str, str]:
        status = main(["--store", str(self.store), *args])
        said = self._capsys.readouterr()
        return status, said.out, said.err


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [ONE], "alpine:3.19", "localhost:5000/app:dev", created="2020-01-01T00:00:00Z", label="old")
        add_image(store, [ONE, TWO], f"alpine:3.20@{DIGEST}", created="2024-01-01T00:00:00Z")
    return Shell(tmp_path / "store", capsys)


def test_ls_prints_a_line_for_each_tag_newest_first(shell: Shell) -> None:
    status, out, _ = shell("ls", "--mount-path")
    header, *rows = [line.split("   ") for line in out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert status == 0
    assert [cell.strip() for cell in header if cell.strip()] == [
        "REPOSITORY",
        "TAG",
        "IMAGE ID",
        "CREATED",
        "SIZE",
        "MOUNT PATH",
    ]
    assert [(row[0], row[1], row[-1]) for row in cells] == [
        ("alpine", "3.20", "alpine/3.20"),
        ("alpine", "3.19", "alpine/3.19"),
        ("localhost:5000/app", "dev", "localhost:5000/app/dev"),
    ]
    assert all(row[3].endswith(" ago") for row in cells)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [("alpine", 2), ("alpine:3.19", 1), ("al*", 2), ("*", 2), ("*/app", 1), ("localhost:5000/app:dev", 1), ("none", 0)],
)
def test_ls_with_a_reference_shows_what_docker_would(shell: Shell, pattern: str, count: int) -> None:
    status, out, _ = shell("ls", "-q", pattern)
    assert status == 0
    assert len(out.splitlines()) == count


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--noheading", "--format", "table {{.Repository}}\\t{{.Tag}}", "alpine"), ["alpine   3.20", "alpine   3.19"]),
        (("--format", "table {{.Tag}}", "alpine:3.20"), ["TAG", "3.20"]),
        (("--format", "{{.Repository}}:{{.Tag}} {{.CreatedAt}} {{.Digest}}", "alpine:3.20"),
         [f"alpine:3.20 2024-01-01 00:00:00 +0000 UTC {DIGEST}"]),
        (("--format", "{{.MountPath}}", "--sort", "repository", "alpine"), ["alpine/3.19", "alpine/3.20"]),
        (("--format", "{{.Tag}}", "--filter", "before=alpine:3.20", "--sort", "tag"), ["3.19", "dev"]),
        (("--format", "{{.Tag}}", "--filter", "label=label=old", "--filter", "reference=alp*"), ["3.19"]),
        (("--format", "{{.Labels}}", "alpine:3.19"), ["label=old"]),
        (("-a", "--format", "{{if .Repository}}{{lower .Tag}}{{end}}", "alpine:3.20"), ["3.20"]),
    ],
)  # fmt: skip
def test_ls_prints_what_is_asked_for_in_the_form_asked_for(
    shell: Shell, args: tuple[str, ...], expected: list[str]
) -> None:
    status, out, _ = shell("ls", *args)
    assert status == 0
    assert out.splitlines() == expected


def test_ls_prints_json_and_whole_ids(shell: Shell) -> None:
    rows = [json.loads(line) for line in shell("ls", "--format", "json", "--no-trunc")[1].splitlines()]
    assert [row["Tag"] for row in rows] == ["3.20", "3.19", "dev"]
    assert all(len(row["ID"]) == 71 for row in rows)
    assert shell("ls", "-q", "--no-trunc", "alpine:3.20")[1] == rows[0]["ID"] + "\n"
    assert "DIGEST" in shell("ls", "--digests")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("--format", "{{.Name}}"), "there is no field 'Name'; known are CreatedAt"),
        (("--format", "{{.ID"), "invalid format"),
        (("--filter", "colour=red"), "unknown key 'colour'"),
        (("--sort", "colour"), "invalid choice"),
    ],
)
def test_ls_says_what_it_does_not_understand(shell: Shell, args: tuple[str, ...], reason: str) -> None:
    try:
        status, _, err = shell("ls", *args)
    except SystemExit:  # argparse has printed it
        return
    assert status == 2
    assert reason in err


def test_ls_of_a_store_that_does_not_exist_yet_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell(tmp_path / "none", capsys)
    status, out, _ = shell("ls")
    assert status == 0
    assert len(out.splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_an_image_whose_tag_moved_is_shown_without_a_name(shell: Shell) -> None:
    shell("tag", "alpine:3.20", "localhost:5000/app:dev")
    shell("tag", "alpine:3.20", "alpine:3.19")
    _, out, _ = shell("ls", "--mount-path")
    last = out.splitlines()[-1].split()
    assert last[:2] == ["<none>", "<none>"]
    assert last[-1].startswith(".imagefs/images/")


def test_inspect_prints_an_array_in_dockers_shape(shell: Shell) -> None:
    status, out, _ = shell("inspect", "alpine:3.20", "localhost:5000/app:dev")
    new, old = json.loads(out)
    assert status == 0
    assert new["RepoTags"] == ["alpine:3.20"]
    assert new["RepoDigests"] == [f"alpine@{DIGEST}"]
    assert new["RootFS"]["Layers"][0] == old["RootFS"]["Layers"][0]
    assert (old["Architecture"], old["Os"], old["Config"]["Labels"]) == ("amd64", "linux", {"label": "old"})
    assert old["MountPaths"] == ["alpine/3.19", "localhost:5000/app/dev"]


def test_inspect_fills_templates_and_prints_documents_as_they_are(shell: Shell) -> None:
    assert (
        shell("inspect", "-f", "{{.Config.Labels.label}} {{index .RepoTags 0}}", "alpine:3.19")[1]
        == "old alpine:3.19\n"
    )
    lines = shell("inspect", "--format", "json", "alpine:3.19", "alpine:3.20")[1].splitlines()
    assert [json.loads(line)["RepoTags"][0] for line in lines] == ["alpine:3.19", "alpine:3.20"]
    status, _, err = shell("inspect", "-f", "{{.Nothing.At.All}", "alpine:3.19")
    assert (status, "invalid format" in err) == (2, True)


def test_inspect_prints_documents_byte_for_byte(shell: Shell) -> None:
    with Store.open(shell.store) as store:
        image = store.image("alpine:3.19")
        manifest, config = store.document(image.manifest_digest), store.document(image.id)
    assert shell("inspect", "--raw", "alpine:3.19")[1].encode() == manifest
    assert shell("inspect", "--config", "alpine:3.19")[1].encode() == config


def test_inspect_prints_what_it_finds_and_reports_the_rest(shell: Shell) -> None:
    status, out, err = shell("inspect", "alpine:3.20", "alpine:3.2")
    assert status == 7
    assert len(json.loads(out)) == 1
    assert "no such image: alpine:3.2; did you mean alpine:3.20" in err


def test_tag_gives_another_name_and_says_nothing(shell: Shell) -> None:
    assert shell("tag", "alpine:3.19", "mine") == (0, "", "")
    _, out, _ = shell("ls", "-q", "mine:latest")
    _, id_, _ = shell("ls", "-q", "alpine:3.19")
    assert out == id_


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (f"x@{DIGEST}", "refusing to create a tag with a digest reference"),
        ("sha256", "ambiguous"),
        ("Big", "must be lowercase"),
        ("x:" + "t" * 129, "invalid reference format"),
    ],
)
def test_tag_refuses_what_docker_refuses(shell: Shell, target: str, said: str) -> None:
    status, _, err = shell("tag", "alpine:3.19", target)
    assert status == 2
    assert said in err


def test_rm_says_what_it_untagged_and_deleted(shell: Shell) -> None:
    status, out, _ = shell("rm", "alpine:3.19", "localhost:5000/app:dev")
    assert status == 0
    first, second, third = out.splitlines()
    assert (first, second) == ("Untagged: alpine:3.19", "Untagged: localhost:5000/app:dev")
    assert third.startswith("Deleted: sha256:")


def test_rm_removes_the_others_when_one_cannot_be(shell: Shell) -> None:
    status, out, err = shell("rm", "nothing", "alpine:3.20")
    assert status == 7
    assert "no such image: nothing" in err
    assert out.startswith("Untagged: alpine:3.20\n")


def test_rm_by_id_with_names_in_two_repositories_needs_force(shell: Shell) -> None:
    id_ = shell("ls", "-q", "alpine:3.19")[1].strip()
    status, _, err = shell("rm", id_)
    assert status == 7
    assert "referenced in multiple repositories" in err
    assert shell("rm", "-f", id_)[0] == 0


def test_wrong_usage_exits_2_and_help_lists_the_exit_codes(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["frobnicate"], ["pull"], ["--nonsense"]):
        with pytest.raises(SystemExit) as caught:
            main(args)
        assert caught.value.code == 2
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for code, meaning in EXIT_CODES:
        assert f"{code:>3}  {meaning}" in said


def test_an_internal_error_is_one_sentence_and_never_a_traceback(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Store) -> None:
        raise ZeroDivisionError("something\nunforeseen")

    monkeypatch.setattr(Store, "images", broken)
    status, _, err = shell("ls")
    assert status == 1
    assert err == (
        "imagefs: internal error, please report it with the output of --debug:"
        " ZeroDivisionError: something\\nunforeseen\n"
    )


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("pul", "alpine"), "there is no command 'pul'; did you mean pull?; 'imagefs --help' says more"),
        (("frobnicate",), "there is no command 'frobnicate'; 'imagefs --help' says more"),
        (("find",), "imagefs find: the following arguments are required: REF; 'imagefs find --help' says more"),
        (("ls", "--formt", "x"), "imagefs ls: unrecognized arguments: --formt; did you mean --format?; 'imagefs ls"),
        (("find", "a", "-newer", "x"), "imagefs find: unrecognized arguments: -newer"),
        (("find", "a", "-printf", "x"), "imagefs find: unrecognized arguments: -printf x; 'imagefs find"),
        (("ls", "--form", "x"), "imagefs ls: unrecognized arguments: --form; did you mean --format?; 'imagefs ls"),
        (("ls", "--no-t"), "imagefs ls: unrecognized arguments: --no-t; did you mean --no-trunc?; 'imagefs ls"),
        (("--sto", "x", "ls"), "imagefs: unrecognized arguments: --sto; did you mean --store?; 'imagefs --help'"),
        (
            ("mount", "alpine"),
            "there is no folder 'alpine'; if it is an image, DIR is missing: imagefs mount alpine DIR",
        ),
        (("mount", "ghcr.io/a/b:1"), "DIR is missing: imagefs mount ghcr.io/a/b:1 DIR"),
        (("-x", "ls"), "imagefs: unrecognized arguments: -x; 'imagefs --help'"),
        (("run", "alpine"), "imagefs: imagefs runs no containers; 'podman run' and 'docker run' do;"),
        (("ps",), "imagefs runs no containers; 'podman ps' and 'docker ps' do;"),
        (("exec", "-it", "a", "sh"), "imagefs runs no containers; 'podman exec' and 'docker exec' do;"),
        (("build", "-t", "a", "."), "imagefs builds no images; build with podman or docker, then: podman save"),
        (("push", "a"), "imagefs pushes no images; 'imagefs save --format oci-archive -o FILE REF', then"),
        (("rnu", "a"), "there is no command 'rnu'; 'imagefs --help' says more"),
        (("image", "frob"), "there is no command 'image frob'; 'imagefs --help' says more"),
        (("help", "pul"), "there is no command 'pul'; did you mean pull?; 'imagefs --help' says more"),
        (("ls", "-f", "labl=x"), "unknown key 'labl'; did you mean label?"),
        (("ls", "--format", "{{.Repositry}}"), "there is no field 'Repositry'; did you mean Repository?"),
    ],
)
def test_a_slip_is_one_line_and_names_what_was_meant(tmp_path: Path, typed: tuple[str, ...], said: str) -> None:
    done = imagefs("--store", tmp_path / "none", *typed, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_image_exists_tells_by_its_exit_status(shell: Shell, tmp_path: Path) -> None:
    assert shell("image", "exists", "alpine:3.20") == (0, "", "")
    assert shell("exists", "alpine:nope") == (1, "", "")
    assert shell("exists", "ALPINE:3")[0] == 2
    assert main(["--store", str(tmp_path / "none"), "exists", "alpine"]) == 1
    assert not (tmp_path / "none").exists()


def test_image_commands_do_what_the_commands_do(shell: Shell) -> None:
    assert shell("image", "list", "-q") == shell("ls", "-q")
    assert shell("image", "inspect", "alpine:3.20") == shell("inspect", "alpine:3.20")
    assert shell("image", "tag", "alpine:3.20", "other:1")[0] == 0
    assert shell("image", "rm", "other:1") == (0, "Untagged: other:1\n", "")


def test_info_tells_of_the_store_and_of_none(shell: Shell, tmp_path: Path) -> None:
    status, out, _ = shell("info")
    assert status == 0
    assert f"  Path: {shell.store}\n" in out
    assert "  Images: 2\n" in out
    assert "  Default: docker.io\n" in out
    found = json.loads(shell("info", "--json")[1])
    assert (found["Store"]["Tags"], found["Store"]["Layers"]) == (3, 2)
    assert shell("info", "-f", "{{.Store.Images}} {{.Registries.Default}}")[1] == "2 docker.io\n"
    none = imagefs("--store", tmp_path / "none", "info").stdout
    assert "State: there is none yet; 'imagefs pull' or 'imagefs load' makes one" in none


def test_tables_keep_to_a_terminal_and_pipes_get_all(tmp_path: Path) -> None:
    long = "registry.example/some/very/long/repository/name"
    with Store.open(tmp_path / "store", create=True) as store:
        add_image(store, [ONE], f"{long}:v1.2.3-rc1", "short:1")
    assert long in imagefs("--store", tmp_path / "store", "ls").stdout
    argv = shlex.join([sys.executable, "-m", "imagefs", "--store", str(tmp_path / "store"), "ls"])
    for width, colours in ((80, True), (40, True), (40, False)):
        environment = {"TERM": "xterm", "NO_COLOR": "" if colours else "1"}
        shown = run(["script", "-qec", f"stty cols {width}; {argv}", "/dev/null"], env=environment).stdout
        lines = shown.replace("\r", "").splitlines()
        assert ("\x1b[1m" in lines[0]) == colours
        plain = [re.sub(r"\x1b\[\d*m", "", line) for line in lines]
        assert len(plain) == 3
        assert max(map(len, plain)) <= width
        assert any("…" in line for line in plain)
        assert "MB" in plain[1] or "kB" in plain[1]
        assert re.search(r" [0-9a-f]{12} ", plain[1])  # what is typed again stays whole


def test_the_names_that_docker_has_for_commands_work_too(shell: Shell) -> None:
    assert shell("images", "-q") == shell("ls", "-q")
    assert shell("rmi", "alpine:3.20")[1].startswith("Untagged: alpine:3.20\n")


def test_only_what_a_command_needs_is_imported_and_no_command_is_forgotten() -> None:
    every = set(commands_of(parser()))
    known = {command for commands in FAMILIES.values() for command in commands}
    assert every == known
    for family, commands in FAMILIES.items():
        assert set(commands_of(parser([family]))) == set(commands)
    script = "import sys; from imagefs.cli.main import main; main(['--store', '/none', 'ls', '-q'])"
    script += "; print([name for name in sys.modules if name.startswith('imagefs.cli.')])"
    printed = run([sys.executable, "-c", script]).stdout
    assert "imagefs.cli.ls" in printed
    assert "imagefs.cli.pull" not in printed


@pytest.mark.parametrize("words", [["--debug", "--store=x", "ls"], ["--store", "ls", "ls", "-q"]])
def test_options_before_the_command_are_understood(tmp_path: Path, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "imagefs", *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
