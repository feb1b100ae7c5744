"""``pull --policy`` and ``pull --all-tags``: when the registry is asked, and for what."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagefs.cli.main import main
from imagefs.oci.platform import Platform
from tests.support.built_images import image, sha256, tar
from tests.support.registry import Registry, refuse

ONE = image([tar({"a": b"1"})])
TWO = image([tar({"a": b"2"})])
Pull = Callable[..., tuple[int, str, str]]


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        registry.put("app", ONE, "1", "latest")
        yield registry


@pytest.fixture
def pull(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Pull:
    monkeypatch.delenv("DOCKER_DEFAULT_PLATFORM", raising=False)
    monkeypatch.setattr(Platform, "host", classmethod(lambda cls: cls("linux", "amd64")))
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*argv: str, command: str = "pull") -> tuple[int, str, str]:
        status = main(["--store", str(tmp_path / "store"), command, *argv])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def asked_for(registry: Registry) -> int:
    return len(registry.asked("/v2/app/"))


def test_missing_asks_only_for_what_is_not_there(registry: Registry, pull: Pull) -> None:
    name = f"{registry.host}/app:1"
    assert pull("--policy", "missing", name)[0] == 0
    before = asked_for(registry)
    assert before > 0
    status, out, _ = pull("--policy", "missing", name)
    assert (status, asked_for(registry)) == (0, before)
    assert out.splitlines() == [f"Status: Image is in the store, the registry was not asked for {name}", name]
    assert pull("-q", "--policy", "missing", name)[1] == f"{name}\n"
    # For another platform what is there is of no use.
    status, _, err = pull("--policy", "missing", "--platform", "linux/arm64", name)
    assert (status, asked_for(registry) > before) == (5, True), err


def test_never_asks_nobody(registry: Registry, pull: Pull) -> None:
    status, _, err = pull("--policy", "never", f"{registry.host}/app:1")
    assert (status, asked_for(registry)) == (7, 0)
    assert "; the policy is never to pull" in err
    assert pull(f"{registry.host}/app:1")[0] == 0
    before = asked_for(registry)
    assert pull("--policy", "never", f"{registry.host}/app:1")[0] == 0
    assert asked_for(registry) == before


def test_newer_takes_what_is_newer_and_else_what_is_there(registry: Registry, pull: Pull) -> None:
    name = f"{registry.host}/app"
    assert pull("--policy", "newer", name)[0] == 0
    registry.put("app", TWO, "latest")
    assert "Downloaded newer image" in pull("--policy", "newer", name)[1]
    registry.fault("/v2/app/manifests", refuse(403, "DENIED", "not today"), every_time=True)
    status, out, err = pull("--policy", "newer", name)
    assert (status, out.splitlines()[-1]) == (0, f"{name}:latest")
    assert "the image that is there is used" in err
    status, _, err = pull("--policy", "newer", f"{registry.host}/app:1")
    assert (status, "DENIED" in err or "denied" in err) == (4, True), err
    assert pull(name)[0] == 4  # the policy is always, when nothing is said


def test_all_tags_are_pulled_but_what_is_no_image(registry: Registry, pull: Pull) -> None:
    registry.put("app", TWO, "2")
    signature = f"sha256-{sha256(b'').partition(':')[2]}.sig"
    for tag in (signature, "chart"):
        chart = ONE.manifest.replace(b"vnd.oci.image.config.v1+json", b"vnd.cncf.helm.config.v1+json")
        registry.put_manifest("app", chart, tag, media_type="application/vnd.oci.image.manifest.v1+json")
    status, out, err = pull("-a", "-q", f"{registry.host}/app")
    assert status == 0
    assert out.split() == [f"{registry.host}/app:{tag}" for tag in ("1", "latest", "2")]
    assert "chart is left out: unsupported media type" in err
    assert signature not in err
    listed = pull("--format", "{{.Tag}}", command="ls")[1]
    assert sorted(listed.split()) == ["1", "2", "latest"]


def test_all_tags_and_a_tag_exclude_each_other(registry: Registry, pull: Pull) -> None:
    status, _, err = pull("-a", f"{registry.host}/app:1")
    assert (status, asked_for(registry)) == (2, 0)
    assert "can't be used with --all-tags" in err


def test_a_dry_run_of_all_tags_downloads_nothing(registry: Registry, pull: Pull, tmp_path: Path) -> None:
    status, out, _ = pull("-a", "-n", "-q", f"{registry.host}/app")
    assert status == 0
    assert out.count("Would download") == 2
    assert not (tmp_path / "store").exists()


def test_untag_takes_a_name_and_leaves_the_image(registry: Registry, pull: Pull) -> None:
    name = f"{registry.host}/app"
    pull("-a", "-q", name)
    assert pull(f"{name}:1", command="untag")[:2] == (0, f"Untagged: {name}:1\n")
    (image_id,) = set(pull("-q", command="ls")[1].split())
    status, out, _ = pull(image_id, command="untag")
    assert (status, out.splitlines()[0]) == (0, f"Untagged: {name}:latest")
    assert pull("-q", command="ls")[1].split() == [image_id]
    assert pull("--format", "{{.Repository}}", command="ls")[1] == "<none>\n"
    status, _, err = pull(f"{name}:1", command="untag")
    assert (status, "no such image" in err) == (7, True)
