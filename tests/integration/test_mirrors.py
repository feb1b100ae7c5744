"""Pulling where mirrors are configured, and the tags of a repository."""

import json
from pathlib import Path

import pytest

from imagefs.store.store import Store
from tests.support.built_images import image, tar
from tests.support.commands import imagefs
from tests.support.registry import Registry, basic, status

ONE = image([tar({"etc/one": b"1" * 100_000}), tar({"etc/two": b"2"})])


@pytest.fixture
def configured(tmp_path: Path) -> dict[str, str]:
    return {"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf"), "HOME": str(tmp_path)}


def configure(tmp_path: Path, location: str, *mirrors: str, more: str = "") -> None:
    text = f'[[registry]]\nlocation = "{location}"\n{more}'
    text += "".join(f'[[registry.mirror]]\nlocation = "{mirror}"\n' for mirror in mirrors)
    (tmp_path / "registries.conf").write_text(text)


def files(tmp_path: Path, reference: str) -> list[bytes]:
    with Store.open(tmp_path / "store") as store:
        return [store.layer_path(diff_id).read_bytes() for diff_id in store.image(reference).diff_ids]


def test_a_mirror_that_has_it_is_all_that_is_asked(tmp_path: Path, configured: dict[str, str]) -> None:
    with Registry() as mirror, Registry() as origin:
        mirror.put("hub/team/app", ONE, "1")
        configure(tmp_path, origin.host, f"{mirror.host}/hub")
        imagefs("--store", tmp_path / "store", "pull", f"{origin.host}/team/app:1", env=configured)
        assert not origin.asked("")
        assert len(mirror.asked("blobs")) == 3
        assert len(files(tmp_path, f"{origin.host}/team/app:1")) == 2


def test_mirrors_that_are_down_or_have_it_not_are_passed_over(tmp_path: Path, configured: dict[str, str]) -> None:
    with Registry() as empty, Registry() as origin, Registry() as broken:
        origin.put("team/app", ONE, "1")
        broken.fault("", status(503), every_time=True)
        configure(tmp_path, origin.host, "127.0.0.1:1", empty.host, broken.host)
        done = imagefs("--store", tmp_path / "store", "--debug", "pull", f"{origin.host}/team/app:1", env=configured)
        assert "is passed over" in done.stderr
        assert empty.asked("manifests")
        assert len(files(tmp_path, f"{origin.host}/team/app:1")) == 2


def test_layers_a_mirror_lost_come_from_the_registry(tmp_path: Path, configured: dict[str, str]) -> None:
    with Registry() as mirror, Registry() as origin:
        mirror.put("team/app", ONE, "1")
        origin.put("team/app", ONE, "1")
        mirror.fault("blobs", status(404), every_time=True)
        configure(tmp_path, origin.host, mirror.host)
        imagefs("--store", tmp_path / "store", "pull", f"{origin.host}/team/app:1", env=configured)
        assert not origin.asked("manifests")
        assert len(origin.asked("blobs")) == 3


def test_no_host_gets_the_credentials_of_another(tmp_path: Path, configured: dict[str, str]) -> None:
    with Registry() as mirror, Registry() as origin:
        mirror.put("team/app", ONE, "1")
        configure(tmp_path, origin.host, mirror.host)
        authfile = tmp_path / "auth.json"
        secret = basic("somebody", "secret").removeprefix("Basic ")
        authfile.write_text(json.dumps({"auths": {origin.host: {"auth": secret}}}))
        args = ("pull", "--authfile", authfile, f"{origin.host}/team/app:1")
        imagefs("--store", tmp_path / "store", *args, env=configured)
        assert all(seen.authorization is None for seen in mirror.asked(""))


def test_a_blocked_registry_is_not_asked(tmp_path: Path, configured: dict[str, str]) -> None:
    with Registry() as origin:
        configure(tmp_path, origin.host, more="blocked = true\n")
        done = imagefs("--store", tmp_path / "store", "pull", f"{origin.host}/app:1", env=configured, check=False)
        assert done.returncode == 3
        assert "is blocked by the registries configuration" in done.stderr
        assert not origin.asked("")


def test_a_broken_configuration_is_one_sentence_with_the_file(tmp_path: Path, configured: dict[str, str]) -> None:
    (tmp_path / "registries.conf").write_text("[[registry]]\nlocation = 5\n")
    done = imagefs("--store", tmp_path / "store", "pull", "alpine", env=configured, check=False)
    assert done.returncode == 2
    assert f"{tmp_path}/registries.conf: expected 'location'" in done.stderr


def test_the_tags_of_a_repository_are_listed(tmp_path: Path) -> None:
    with Registry() as origin:
        origin.put("team/app", ONE, *(f"v{number}" for number in range(12)))
        listed = imagefs("tags", f"{origin.host}/team/app").stdout.split()
        assert sorted(listed) == sorted(f"v{number}" for number in range(12))
        assert len(imagefs("tags", "--limit", "5", f"{origin.host}/team/app").stdout.split()) == 5
        assert sorted(json.loads(imagefs("tags", "--json", f"{origin.host}/team/app").stdout)) == sorted(listed)
        missing = imagefs("tags", f"{origin.host}/team/none", check=False)
        assert missing.returncode == 5
        assert "not found" in missing.stderr
        assert imagefs("tags", f"{origin.host}/team/app:v1", check=False).returncode == 2
