"""What loaded images are called."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import UsageError
from imagefs.oci.reference import Reference
from imagefs.transfer.names import name_image, repository_from


def named(*names: str, repository: str | None = "folder", wanted: str | None = None) -> list[str]:
    naming = name_image(names, repository=repository, wanted=Reference.parse(wanted) if wanted else None)
    return [str(reference) for reference in naming.references]


def test_a_whole_reference_is_taken_as_it_is() -> None:
    assert named("docker.io/library/alpine:3.20") == ["docker.io/library/alpine:3.20"]
    assert named("busybox:1") == ["docker.io/library/busybox:1"]
    assert named("quay.io/a/b") == ["quay.io/a/b:latest"]


def test_a_bare_tag_goes_to_the_name_of_the_folder() -> None:
    assert named("v2") == ["docker.io/library/folder:v2"]


def test_a_bare_tag_from_standard_input_asks_for_a_name() -> None:
    with pytest.raises(UsageError, match="--name"):
        named("v2", repository=None)
    assert named("v2", repository=None, wanted="mine") == ["docker.io/library/mine:v2"]


def test_a_wanted_name_without_tag_keeps_the_tag_of_the_archive() -> None:
    assert named("v2", wanted="mine") == ["docker.io/library/mine:v2"]
    assert named("quay.io/a/b:7", wanted="mine") == ["docker.io/library/mine:7"]
    assert named(wanted="mine") == ["docker.io/library/mine:latest"]


def test_a_wanted_name_with_tag_replaces_everything() -> None:
    assert named("v2", "quay.io/a/b:7", wanted="mine:1") == ["docker.io/library/mine:1"]


def test_no_name_stays_no_name() -> None:
    assert named() == []
    assert named("<none>:<none>") == []


def test_a_digest_in_a_name_is_not_believed() -> None:
    digest = "sha256:" + "a" * 64
    assert named(f"quay.io/a/b:7@{digest}") == ["quay.io/a/b:7"]
    naming = name_image([f"quay.io/a/b@{digest}"], repository="folder", wanted=None)
    assert not naming.references
    assert len(naming.unusable) == 1


@pytest.mark.parametrize("name", ["../x", "a/../b:1", "Upper/Case:1", "x y", "-tag", "a" * 129, "a\n", "é"])
def test_a_name_that_is_no_reference_is_reported_and_not_used(name: str) -> None:
    naming = name_image([name], repository="folder", wanted=None)
    assert naming.references == ()
    assert naming.unusable == (name,)


@pytest.mark.parametrize(
    ("filename", "repository"),
    [
        ("small-docker-archive.tar", "small-docker-archive"),
        ("Some Image_1.2.tar.gz", "some-image_1.2"),
        ("x.tgz", "x"),
        ("x.oci.tar.zst", "x"),
        ("a___b..c", "a-b-c"),
        ("a__b--c.d", "a__b--c.d"),
        ("_.-", "image"),
        ("é", "image"),
        ("", "image"),
        ("a" * 64, "image-aaaaaaaaaaaa"),
    ],
)
def test_a_file_name_becomes_a_repository_name(filename: str, repository: str) -> None:
    assert repository_from(filename) == repository


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=300))
def test_any_file_name_gives_a_valid_repository(filename: str) -> None:
    assert Reference.parse(repository_from(filename)).with_tag("x").tag == "x"
