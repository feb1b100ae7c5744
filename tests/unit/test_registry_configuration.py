"""Registries and mirrors are found as podman and docker find them, and what is wrong in a file is named."""

import json
from pathlib import Path

import pytest

from imagefs.errors import ConfigurationInvalid, RegistryError
from imagefs.oci.reference import Reference
from imagefs.registry.configuration import Configuration, load_configuration

DIGEST = "sha256:" + "0" * 64


def loaded(
    tmp_path: Path, conf: str = "", *, daemon: object = None, dropped: dict[str, str] | None = None
) -> Configuration:
    (tmp_path / "registries.conf").write_text(conf)
    (tmp_path / "registries.conf.d").mkdir(exist_ok=True)
    for name, text in (dropped or {}).items():
        (tmp_path / "registries.conf.d" / name).write_text(text)
    if daemon is not None:
        (tmp_path / "daemon.json").write_text(daemon if isinstance(daemon, str) else json.dumps(daemon))
    return load_configuration(environ={}, system=tmp_path / "registries.conf", daemon=tmp_path / "daemon.json")


def asked(configuration: Configuration, text: str) -> list[str]:
    endpoints = configuration.endpoints(Reference.parse(text).with_default_tag())
    return [f"{one.registry}/{one.repository}{' insecure' if one.insecure else ''}" for one in endpoints]


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))


def test_without_files_the_registry_itself_is_asked(tmp_path: Path) -> None:
    found = load_configuration(environ={}, system=tmp_path / "none", daemon=tmp_path / "none")
    assert asked(found, "alpine") == ["docker.io/library/alpine"]


def test_the_longest_prefix_counts_and_ends_at_a_slash(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
        unqualified-search-registries = ["example.com"]
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.local:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "second.local"
        [[registry]]
        prefix = "docker.io/library"
        location = "internal.local/base/images"
        [[registry]]
        prefix = "*.example.com"
        location = "*.example.com"
        insecure = true
        """,
    )
    assert asked(found, "bitnami/redis:7") == [
        "mirror.local:5000/hub/bitnami/redis insecure",
        "second.local/bitnami/redis",
        "docker.io/bitnami/redis",
    ]
    assert asked(found, "alpine") == ["internal.local/base/images/alpine"]
    assert asked(found, "docker.io/libraryx/alpine")[-1] == "docker.io/libraryx/alpine"
    assert asked(found, "a.b.example.com/x") == ["a.b.example.com/x insecure"]
    assert asked(found, "example.com/x") == ["example.com/x"]


def test_a_mirror_may_be_for_digests_or_for_tags_only(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
        [[registry]]
        location = "quay.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "digests.local"
        [[registry.mirror]]
        location = "tags.local"
        pull-from-mirror = "tag-only"
        """,
    )
    assert asked(found, "quay.io/a/b:1") == ["tags.local/a/b", "quay.io/a/b"]
    assert asked(found, f"quay.io/a/b@{DIGEST}") == ["digests.local/a/b", "quay.io/a/b"]


def test_a_blocked_registry_is_refused(tmp_path: Path) -> None:
    found = loaded(tmp_path, '[[registry]]\nprefix = "evil.example"\nblocked = true\n')
    with pytest.raises(RegistryError, match=r"evil\.example is blocked"):
        asked(found, "evil.example/app")


def test_drop_ins_replace_what_has_the_same_prefix(tmp_path: Path) -> None:
    base = (
        '[[registry]]\nlocation = "a.example"\ninsecure = true\n[[registry]]\nlocation = "b.example"\ninsecure = true\n'
    )
    found = loaded(
        tmp_path,
        base,
        dropped={
            "10.conf": '[[registry]]\nprefix = "a.example"\nlocation = "c.example"\n',
            "aliases.conf": "[aliases]\n",
        },
    )
    assert asked(found, "a.example/x") == ["c.example/x"]
    assert asked(found, "b.example/x") == ["b.example/x insecure"]


def test_docker_has_mirrors_for_its_hub_and_insecure_hosts(tmp_path: Path) -> None:
    daemon = {
        "registry-mirrors": ["https://mirror.example/", "http://127.0.0.1:5000"],
        "insecure-registries": ["10.0.0.0/8", "plain.example:5000", "bare.example"],
        "storage-driver": "overlay2",
    }
    found = loaded(tmp_path, daemon=daemon)
    assert asked(found, "alpine") == [
        "mirror.example/library/alpine",
        "127.0.0.1:5000/library/alpine insecure",
        "docker.io/library/alpine",
    ]
    assert asked(found, "10.1.2.3:5000/x") == ["10.1.2.3:5000/x insecure"]
    assert asked(found, "11.1.2.3:5000/x") == ["11.1.2.3:5000/x"]
    assert asked(found, "plain.example:5000/x") == ["plain.example:5000/x insecure"]
    assert asked(found, "plain.example:5001/x") == ["plain.example:5001/x"]
    assert asked(found, "bare.example:9/x") == ["bare.example:9/x insecure"]
    with_podmans = loaded(
        tmp_path, '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "m.example"\n', daemon=daemon
    )
    assert asked(with_podmans, "alpine") == ["m.example/library/alpine", "docker.io/library/alpine"]


def test_a_variable_names_the_only_file(tmp_path: Path) -> None:
    loaded(tmp_path, '[[registry]]\nlocation = "a.example"\nblocked = true\n')
    only = tmp_path / "only.conf"
    only.write_text('[[registry]]\nlocation = "a.example"\ninsecure = true\n')
    found = load_configuration(
        environ={"CONTAINERS_REGISTRIES_CONF": str(only)}, system=tmp_path / "registries.conf", daemon=tmp_path / "none"
    )
    assert asked(found, "a.example/x") == ["a.example/x insecure"]


def test_the_users_own_file_comes_before_the_systems(tmp_path: Path) -> None:
    own = tmp_path / "nobody/.config/containers"
    own.mkdir(parents=True)
    (own / "registries.conf").write_text('[[registry]]\nlocation = "a.example"\ninsecure = true\n')
    found = loaded(tmp_path, '[[registry]]\nlocation = "a.example"\nblocked = true\n')
    assert asked(found, "a.example/x") == ["a.example/x insecure"]


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ("[[registry]\n", "line 1"),
        ("[registries.search]\nregistries = []\n", "old format"),
        ('registry = "x"\n', "expected [[registry]]"),
        ("[[registry]]\ninsecure = true\n", "expected 'location' of registry 1 to be there"),
        ('[[registry]]\nlocation = "https://x"\n', "expected 'location' of registry 1 to be host[:port][/path]"),
        ("[[registry]]\nlocation = 5\n", "expected 'location' of registry 1 to be a text"),
        ('[[registry]]\nlocation = "a"\nblocked = "yes"\n', "expected 'blocked' of registry 1 to be true or false"),
        ('[[registry]]\nlocation = "a"\n[[registry.mirror]]\n', "expected 'location' of mirror 1 of registry 1"),
        (
            '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "some"\n',
            "expected 'pull-from-mirror' of mirror 1 of registry 1 to be all, digest-only or tag-only",
        ),
        ("x = '" + "x" * 1024 * 1024 + "'\n", "expected at most 1048576 bytes"),
    ],
)
def test_what_is_wrong_in_podmans_file_is_named(tmp_path: Path, conf: str, reason: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        loaded(tmp_path, conf)
    assert str(caught.value).startswith(str(tmp_path / "registries.conf"))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("daemon", "reason"),
    [
        ("{", "line 1"),
        ([], "expected a JSON object"),
        ({"insecure-registries": "x"}, "expected 'insecure-registries' to be a list of texts"),
        ({"registry-mirrors": ["mirror.example"]}, "expected URLs such as https://host"),
    ],
)
def test_what_is_wrong_in_dockers_file_is_named(tmp_path: Path, daemon: object, reason: str) -> None:
    with pytest.raises(ConfigurationInvalid) as caught:
        loaded(tmp_path, daemon=daemon)
    assert str(tmp_path / "daemon.json") in str(caught.value)
    assert reason in str(caught.value)
