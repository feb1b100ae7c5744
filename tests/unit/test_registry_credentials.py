"""Credentials are found where docker and podman keep them, and never for another registry."""

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from imagefs.errors import Unauthorized
from imagefs.registry.credential_helper import ask_helper
from imagefs.registry.credentials import Credential, find_credential, home

HUB = "https://index.docker.io/v1/"
SECRET = "s3cret-pw"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of our own, and none of the variables that point elsewhere."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()
    return tmp_path


def entry(user: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def auths(path: Path, **entries: Any) -> Path:
    return write(path, {"auths": entries})


def helper(here: Path, name: str, script: str) -> None:
    path = here / "bin" / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def user(registry: str, repository: str = "a/b", **more: Any) -> str | None:
    found = find_credential(registry, repository, **more)
    return found.username if found else None


def test_without_any_file_there_is_no_credential() -> None:
    assert find_credential("r.example", "a/b") is None


def test_the_more_specific_place_wins(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[Path] = []

    def now(path: Path, document: Any = None) -> None:
        name = str(len(places))
        write(path, document(name) if document else {"auths": {"r.example": entry(name)}})
        places.append(path)
        assert user("r.example") == name

    now(here / "home/.dockercfg", lambda name: {"r.example": entry(name)})
    now(here / "home/.docker/config.json")
    monkeypatch.setenv("DOCKER_CONFIG", str(here / "docker"))
    now(here / "docker/config.json")
    now(here / "home/.config/containers/auth.json")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(here / "config"))
    now(here / "config/containers/auth.json")
    now(here / "run/containers/auth.json")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(here / "given.json"))
    now(here / "given.json")
    authfile = auths(here / "option.json", **{"r.example": entry("option")})
    assert user("r.example", authfile=authfile) == "option"


def test_a_file_that_does_not_know_the_registry_leaves_it_to_the_next(here: Path) -> None:
    auths(here / "run/containers/auth.json", **{"other.example": entry("other")})
    auths(here / "home/.docker/config.json", **{"r.example": entry("me")})
    assert user("r.example") == "me"


def test_a_given_authfile_is_the_only_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    auths(here / "home/.docker/config.json", **{"r.example": entry("me")})
    empty = auths(here / "empty.json")
    assert find_credential("r.example", "a", authfile=empty) is None
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(here / "absent.json"))
    assert find_credential("r.example", "a") is None
    with pytest.raises(Unauthorized, match=r"there is no credentials file .*absent\.json"):
        find_credential("r.example", "a", authfile=here / "absent.json")


@pytest.mark.parametrize(
    ("key", "registry", "found"),
    [
        ("r.example", "r.example", True),
        ("r.example:5000", "r.example:5000", True),
        ("r.example:5000", "r.example", False),
        ("r.example", "r.example:5000", False),
        ("https://r.example", "r.example", True),
        ("https://r.example/v2/", "r.example", True),
        ("http://r.example/v1/", "r.example", True),
        ("r.example/v2/", "r.example", True),
        ("r.example.evil", "r.example", False),
        ("https://r.example@evil.example/", "r.example", False),
        ("https://evil.example/r.example", "r.example", False),
        ("ftp://r.example", "r.example", False),
        (HUB, "docker.io", True),
        ("docker.io", "docker.io", True),
        ("index.docker.io", "docker.io", True),
        ("registry-1.docker.io", "docker.io", True),
        (HUB, "r.example", False),
        ("docker.io", "r.docker.io", False),
    ],
)
def test_keys_of_auths(here: Path, key: str, registry: str, found: bool) -> None:
    auths(here / "home/.docker/config.json", **{key: entry("me")})
    assert (user(registry) is not None) is found


@pytest.mark.parametrize(
    ("repository", "expected"),
    [("ns/deep/repo", "deepest"), ("ns/deep/other", "deep"), ("ns/x", "ns"), ("x/y", "host"), ("nsx", "host")],
)
def test_the_most_specific_name_space_wins(here: Path, repository: str, expected: str) -> None:
    keys = {"deepest": "/ns/deep/repo", "deep": "/ns/deep", "ns": "/ns", "host": ""}
    auths(here / "run/containers/auth.json", **{f"r.example{key}": entry(name) for name, key in keys.items()})
    assert user("r.example", repository) == expected


def test_the_credential_of_a_name_space_is_not_used_for_another(here: Path) -> None:
    auths(here / "run/containers/auth.json", **{"r.example/ns": entry("ns")})
    assert find_credential("r.example", "other/repo") is None


def test_all_forms_of_an_entry_are_understood(here: Path) -> None:
    auths(
        here / "run/containers/auth.json",
        **{
            "a.example": {"username": "u", "password": SECRET},
            "b.example": {**entry("<token>", ""), "identitytoken": SECRET},
            "c.example": {"registrytoken": SECRET},
            "d.example": entry("u", "with:colon"),
            "e.example": {"auth": base64.b64encode(b"u:p\0\0").decode()},
            "f.example": {},
            "g.example": "text",
        },
    )
    assert find_credential("a.example", "x") == Credential("u", SECRET, source=str(here / "run/containers/auth.json"))
    assert (found := find_credential("b.example", "x")) is not None
    assert found.identity_token == SECRET
    assert (found := find_credential("c.example", "x")) is not None
    assert found.registry_token == SECRET
    assert (found := find_credential("d.example", "x")) is not None
    assert found.password == "with:colon"
    assert (found := find_credential("e.example", "x")) is not None
    assert found.password == "p"
    assert find_credential("f.example", "x") is None
    assert find_credential("g.example", "x") is None


def test_secrets_are_not_shown() -> None:
    credential = Credential("me", SECRET, identity_token=SECRET, registry_token=SECRET)
    assert SECRET not in f"{credential} {credential!r}"


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"', "[" * 100_000, '{"auths": {"r.example": {"auth": "%%%"}}}'])
def test_a_broken_file_is_named(here: Path, text: str) -> None:
    path = write(here / "home/.docker/config.json", text)
    with pytest.raises(Unauthorized) as caught:
        find_credential("r.example", "x")
    assert str(path) in str(caught.value)


def test_an_empty_file_holds_nothing(here: Path) -> None:
    write(here / "home/.docker/config.json", "\n")
    assert find_credential("r.example", "x") is None


def test_home_is_known_without_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    found = home()
    assert found is None or found.is_absolute()


# ---- helpers ----


ECHO = r"""
read server
echo "{\"ServerURL\": \"$server\", \"Username\": \"$(basename "$0") $server\", \"Secret\": \"s\"}"
"""


def test_a_helper_for_the_registry_wins_over_the_store_and_that_over_auths(here: Path) -> None:
    helper(here, "one", ECHO)
    helper(here, "all", ECHO)
    document: dict[str, Any] = {"auths": {"r.example": entry("plain")}}
    path = here / "home/.docker/config.json"
    write(path, document)
    assert user("r.example") == "plain"
    write(path, document | {"credsStore": "all"})
    assert user("r.example") == "docker-credential-all r.example"
    write(path, document | {"credsStore": "all", "credHelpers": {"r.example": "one"}})
    assert user("r.example") == "docker-credential-one r.example"


def test_the_store_is_asked_for_docker_hub_by_its_old_name(here: Path) -> None:
    helper(
        here,
        "all",
        'read server; test "$server" = https://index.docker.io/v1/ && echo \'{"Username":"me","Secret":"s"}\'',
    )
    write(here / "home/.docker/config.json", {"credsStore": "all"})
    assert user("docker.io") == "me"


def test_a_helper_is_run_for_its_registry_only(here: Path) -> None:
    helper(here, "one", f"touch {here}/was-run; {ECHO}")
    write(here / "home/.docker/config.json", {"credHelpers": {"r.example": "one"}})
    assert find_credential("other.example", "x") is None
    assert not (here / "was-run").exists()


def test_a_missing_helper_means_no_credential_and_never_anothers(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = {"credHelpers": {"r.example": "absent"}, "auths": {"other.example": entry("other"), HUB: entry("hub")}}
    write(here / "home/.docker/config.json", document)
    assert find_credential("r.example", "x") is None
    assert "docker-credential-absent, which is not installed" in caplog.text


def test_a_helper_without_the_secret_leaves_it_to_auths(here: Path) -> None:
    helper(here, "all", "echo credentials not found in native keychain; exit 1")
    document: dict[str, Any] = {"credsStore": "all", "auths": {"r.example": {}}}
    path = write(here / "home/.docker/config.json", document)
    assert find_credential("r.example", "x") is None
    write(path, document | {"auths": {"r.example": entry("plain")}})
    assert user("r.example") == "plain"


def test_a_helper_may_answer_with_an_identity_token(here: Path) -> None:
    helper(here, "one", 'echo \'{"Username":"<token>","Secret":"s3cret-pw"}\'')
    write(here / "home/.docker/config.json", {"credHelpers": {"r.example": "one"}})
    found = find_credential("r.example", "x")
    assert found is not None
    assert (found.identity_token, found.password) == (SECRET, "")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "x y", "x\n", "x" * 200])
def test_names_of_helpers_are_no_paths(name: str) -> None:
    with pytest.raises(Unauthorized, match="no name of a credential helper"):
        ask_helper(name, "r.example")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo hello", "something else than JSON"),
        ("echo []", "something else than JSON"),
        ('echo \'{"Username":1,"Secret":"s"}\'', "something else than JSON"),
        ("true", "something else than JSON"),
        ("echo it broke; exit 3", "failed: it broke"),
        ("exit 3", "failed: status 3"),
        ("exec cat /dev/zero", "more than 1048576 bytes"),
    ],
)
def test_a_helper_that_does_not_do_its_work_is_an_error(here: Path, script: str, message: str) -> None:
    helper(here, "bad", script)
    with pytest.raises(Unauthorized, match=message):
        ask_helper("bad", "r.example")


@pytest.mark.parametrize("script", ["exec sleep 60", "exec >&-; exec sleep 60", "sleep 2 & exit 0"])
def test_a_helper_that_hangs_is_stopped(here: Path, script: str) -> None:
    helper(here, "slow", script)
    with pytest.raises(Unauthorized, match="did not answer in time"):
        ask_helper("slow", "r.example", timeout_s=0.2)
