"""Names of images as directories: familiar names, digests, symlinks, and the one collision there is."""

from dataclasses import replace

from imagefs.oci.digest import DiffId, Digest
from imagefs.oci.reference import Reference
from imagefs.store.catalog import Image
from imagefs.view.namespace import Directory, Found, ImageRoot, Symlink, mount_path, namespace

HEX = "d" * 64


def image(number: int, *names: str) -> Image:
    references = [Reference.parse(name) for name in names]
    digest = Digest.of(b"%d" % number)
    return Image(
        id=digest,
        manifest_digest=digest,
        tags=tuple(name for name in references if name.tag),
        digests=tuple(
            Reference(name.registry, name.repository, None, name.digest) for name in references if name.digest
        ),
        diff_ids=(DiffId(digest),),
        created_ns=None,
        size=0,
        platform="linux/amd64",
    )


def at(root: Directory, path: str) -> Found | None:
    found: Found | None = root
    for name in path.encode().split(b"/"):
        found = found.resolve(name) if isinstance(found, Directory) else None
    return found


def listed(root: Directory, path: str = "") -> list[str]:
    found = at(root, path) if path else root
    assert isinstance(found, Directory)
    return [name.decode() for name in found.listed]


def test_familiar_names_are_nested_directories() -> None:
    names = (
        "alpine:3.20",
        "bitnami/postgresql:14",
        "gcr.io/google-containers/git-sync:v3.1.5",
        "localhost:5000/app:dev",
    )
    images = [image(number, name) for number, name in enumerate(names)]
    root = namespace(images)
    assert listed(root) == ["alpine", "bitnami", "gcr.io", "localhost:5000"]
    for one, path in zip(
        images,
        ("alpine/3.20", "bitnami/postgresql/14", "gcr.io/google-containers/git-sync/v3.1.5", "localhost:5000/app/dev"),
        strict=True,
    ):
        assert at(root, path) == ImageRoot(one)
        assert mount_path(root, one, one.tags[0]) == path.encode()


def test_an_image_known_by_digest_only_is_listed_by_it() -> None:
    root = namespace([image(1, f"alpine@sha256:{HEX}")])
    assert listed(root, "alpine") == [f"@sha256:{HEX}"]
    assert at(root, f"alpine@sha256:{HEX}") == Symlink(f"alpine/@sha256:{HEX}".encode())


def test_a_digest_beside_a_tag_resolves_but_is_not_listed() -> None:
    root = namespace([image(1, f"alpine:3.20@sha256:{HEX}")])
    assert listed(root, "alpine") == ["3.20"]
    assert isinstance(at(root, f"alpine/@sha256:{HEX}"), ImageRoot)


def test_name_colon_tag_is_a_symlink_where_the_tag_is() -> None:
    root = namespace([image(1, "alpine:3.20"), image(2, "localhost:5000/app:dev")])
    assert at(root, "alpine:3.20") == Symlink(b"alpine/3.20")
    assert at(root, "localhost:5000/app:dev") == Symlink(b"app/dev")
    assert at(root, "alpine:3.19") is None
    assert at(root, "app:dev") is None
    assert "alpine:3.20" not in listed(root)


def test_a_tag_wins_over_a_deeper_repository_whatever_came_first() -> None:
    tagged, shadowed = image(1, "foo:bar"), image(2, "foo/bar:baz")
    for images in ([tagged, shadowed], [shadowed, tagged]):
        root = namespace(images)
        assert at(root, "foo/bar") == ImageRoot(tagged)
        assert mount_path(root, tagged, tagged.tags[0]) == b"foo/bar"
        hidden = mount_path(root, shadowed, shadowed.tags[0])
        assert hidden == b".imagefs/images/" + shadowed.id.hex.encode()
        assert at(root, hidden.decode()) == ImageRoot(shadowed)


def test_the_control_directory_resolves_but_is_not_listed() -> None:
    one = image(1, "foo:bar")
    root = namespace([one])
    assert listed(root) == ["foo"]
    for name in (one.id.hex, f"sha256:{one.id.hex}"):
        assert at(root, f".imagefs/images/{name}") == ImageRoot(one)
    assert at(root, f".imagefs/images/{one.id.hex[:5]}") is None
    assert at(root, ".imagefs/else") is None


def test_all_abbreviations_of_an_id_are_one_symlink_to_it() -> None:
    one, two = image(1, "foo:bar"), image(2)
    root = namespace([one, two])
    for which in (one, two):
        whole = which.id.hex
        for prefix in ("", "sha256:"):
            found = {at(root, f".imagefs/images/{prefix}{whole[:length]}") for length in range(12, len(whole))}
            (symlink,) = found
            assert isinstance(symlink, Symlink)
            assert symlink.target == whole.encode()
            assert symlink.name is not None
            assert at(root, f".imagefs/images/{symlink.name.decode()}") == symlink


def test_an_abbreviation_of_two_ids_is_nothing() -> None:
    ids = [Digest("sha256", "a" * 20 + tail * 44) for tail in "bcd"]
    root = namespace([replace(image(number), id=id_) for number, id_ in enumerate(ids)])
    assert at(root, ".imagefs/images/" + "a" * 20) is None
    for id_ in ids:
        found = at(root, f".imagefs/images/{id_.hex[:21]}")
        assert isinstance(found, Symlink)
        assert found.target == id_.hex.encode()


def test_an_image_without_names_is_reachable_by_id_only() -> None:
    one = image(1)
    root = namespace([one])
    assert listed(root) == []
    assert mount_path(root, one, None) == b".imagefs/images/" + one.id.hex.encode()
