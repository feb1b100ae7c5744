import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import InvalidReference
from imagefs.oci.digest import Digest
from imagefs.oci.reference import Reference, is_valid_tag
from tests.support.data import data_dir, needs_data

F64 = "f" * 64
SHA = f"sha256:{F64}"

FAMILIAR = [
    # typed, canonical, familiar
    ("alpine", "docker.io/library/alpine", "alpine"),
    ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
    (f"alpine@{SHA}", f"docker.io/library/alpine@{SHA}", f"alpine@{SHA}"),
    (f"alpine:3@{SHA}", f"docker.io/library/alpine:3@{SHA}", f"alpine:3@{SHA}"),
    ("library/alpine", "docker.io/library/alpine", "alpine"),
    ("docker.io/alpine", "docker.io/library/alpine", "alpine"),
    ("index.docker.io/alpine", "docker.io/library/alpine", "alpine"),
    ("index.docker.io/library/alpine", "docker.io/library/alpine", "alpine"),
    ("bitnami/postgresql:14", "docker.io/bitnami/postgresql:14", "bitnami/postgresql:14"),
    ("library/foo/bar", "docker.io/library/foo/bar", "library/foo/bar"),
    ("other/library", "docker.io/other/library", "other/library"),
    ("localhost", "docker.io/library/localhost", "localhost"),
    ("localhost/foo", "localhost/foo", "localhost/foo"),
    ("localhost:5000/app/dev", "localhost:5000/app/dev", "localhost:5000/app/dev"),
    ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
    ("192.168.0.1", "docker.io/library/192.168.0.1", "192.168.0.1"),
    ("192.168.0.1:8/debian", "192.168.0.1:8/debian", "192.168.0.1:8/debian"),
    ("LOCALDOMAIN/debian", "LOCALDOMAIN/debian", "LOCALDOMAIN/debian"),
    ("Foo/bar", "Foo/bar", "Foo/bar"),
    ("gcr.io/google-containers/git-sync:v3.1.5", *["gcr.io/google-containers/git-sync:v3.1.5"] * 2),
    ("[fc00::1]:5000/docker", "[fc00::1]:5000/docker", "[fc00::1]:5000/docker"),
    ("dock__er/a---b", "docker.io/dock__er/a---b", "dock__er/a---b"),
    ("sha256:ab", "docker.io/library/sha256:ab", "sha256:ab"),
    (SHA, f"docker.io/library/{SHA}", SHA),
    # names whose usual short form would mean another image, or none
    ("docker.io/a.b/c", "docker.io/a.b/c", "docker.io/a.b/c"),
    ("docker.io/localhost/c", "docker.io/localhost/c", "docker.io/localhost/c"),
    ("docker.io/docker.io/c", "docker.io/docker.io/c", "docker.io/docker.io/c"),
    (f"docker.io/{F64}", f"docker.io/library/{F64}", f"library/{F64}"),
]

REFUSED = [
    ("", "repository name must have at least one component"),
    ("Alpine", "repository name (library/Alpine) must be lowercase"),
    ("foo/Bar:1", "repository name (foo/Bar) must be lowercase"),
    ("alpine:", "nothing behind ':'"),
    (":t", "no repository name before ':'"),
    (f"@{SHA}", "no repository name before '@'"),
    ("a:b:c", "two colons behind the last '/', found ':b:c'"),
    ("foo//bar", "a name on both sides of each '/'"),
    ("/foo", "a name on both sides of each '/'"),
    ("docker/", "a name on both sides of each '/'"),
    ("localhost/", "a name on both sides of each '/'"),
    ("foo bar", "no white space, found ' '"),
    (" foo", "no white space"),
    ("alpine\n", "no white space, found '\\n'"),
    ("https://docker.io/x", "no 'https://'; write 'docker.io/x'"),
    ("docker://alpine", "no 'docker://'; write 'alpine'"),
    ("alpine:" + "t" * 129, "at most 128 characters, found 129"),
    ("alpine:.x", "does not begin with '.'"),
    ("alpine:-x", "does not begin with '-'"),
    ("alpine:a+b", "holds only letters, digits"),
    ("foo:té", "plain ASCII, found 'é'"),
    ("foo:١x", "plain ASCII"),
    ("foo\x00", "found '\\x00'"),
    ("a\udc80", "plain ASCII"),
    ("x" * 300, "repository name must not be more than 255 characters"),
    (F64, "cannot specify 64-byte hexadecimal strings"),
    ("a@sha256:abc", "invalid checksum digest length"),
    ("a@", "there is no colon"),
    (f"a@md5:{'0' * 32}", "unsupported digest algorithm 'md5'"),
    (f"a@{SHA.upper()}", "lower case"),
    (f"a@sha256:{F64.upper()}", "the hex digits must be lower case"),
    (f"a@{SHA}@{SHA}", "something else than hex digits"),
    ("foo:bar/x", "the port of a registry is a number, found 'bar'"),
    ("foo_bar.com/x", "a host name has no '_'"),
    ("-docker.io/docker/docker", "is no host[:port]"),
    ("[fe80::1%eth0]:5000/debian", "an IPv6 zone is not allowed"),
    ("[2001:db8:3:4::192.0.2.33]:5000/debian", "is no host[:port]"),
    ("fc00::1:5000/debian", "is no host[:port]"),
    ("[fc00::1]", "must not hold '['"),
    ("-docker/docker", "'-docker' in the repository name must begin and end"),
    ("docker-/docker", "'docker-' in the repository name must begin and end"),
    ("x/dock..er", "separators in a row"),
    ("x/dock_.er", "separators in a row"),
    ("x/dock___er", "separators in a row"),
    ("x/../y", "must begin and end with a letter or digit"),
    ("x/a%2e", "must not hold '%'"),
]


@pytest.mark.parametrize(("typed", "canonical", "familiar"), FAMILIAR)
def test_familiar_names_mean_what_docker_takes_them_for(typed: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(typed)
    assert str(reference) == canonical
    assert reference.familiar == familiar


@pytest.mark.parametrize(("typed", "reason"), REFUSED)
def test_what_is_wrong_with_a_reference_is_said(typed: str, reason: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        Reference.parse(typed)
    assert str(caught.value).startswith("invalid reference format: ")
    assert reason in str(caught.value)


def test_messages_begin_with_dockers_phrase() -> None:
    for typed, phrase in (
        ("Alpine", "repository name (library/Alpine) must be lowercase"),
        ("x" * 300, "repository name must not be more than 255 characters"),
        (f"a@md5:{'0' * 32}", "unsupported digest algorithm"),
        (F64, f"invalid repository name ({F64}), cannot specify 64-byte hexadecimal strings"),
    ):
        with pytest.raises(InvalidReference) as caught:
            Reference.parse(typed)
        assert caught.value.reason.startswith(phrase)


def test_the_length_limit_counts_the_implied_library_and_not_the_registry() -> None:
    assert len(Reference.parse("x" * 247).repository) == 255
    with pytest.raises(InvalidReference, match="found 256"):
        Reference.parse("x" * 248)
    assert len(Reference.parse("example.com/" + "x" * 255).repository) == 255


def test_the_tag_is_dropped_where_a_digest_says_more() -> None:
    assert Reference.parse("alpine").with_default_tag() == Reference.parse("alpine:latest")
    assert Reference.parse("alpine:3").with_default_tag() == Reference.parse("alpine:3")
    assert Reference.parse(f"alpine:3@{SHA}").with_default_tag() == Reference.parse(f"alpine@{SHA}")
    assert Reference.parse(f"alpine@{SHA}").with_default_tag() == Reference.parse(f"alpine@{SHA}")


def test_a_tag_can_be_replaced() -> None:
    assert Reference.parse(f"alpine:3@{SHA}").with_tag("4") == Reference.parse("alpine:4")
    with pytest.raises(InvalidReference):
        Reference.parse("alpine").with_tag("../x")


def test_no_way_of_making_a_reference_skips_the_check() -> None:
    for registry, repository, tag in (
        ("docker.io", "alpine", None),
        ("index.docker.io", "library/alpine", None),
        ("docker.io", "../x", None),
        ("a/b", "c", None),
        ("docker.io", "a/b", "../x"),
    ):
        with pytest.raises(InvalidReference):
            Reference(registry, repository, tag)


def test_tags_of_registries_are_never_paths() -> None:
    for tag in ("../x", "a/b", "..", ".", "", "x" * 129, "a\0", "a\n", "-a", "té"):
        assert not is_valid_tag(tag)
    for tag in ("latest", "3.20", "_", "A" * 128, "v1.0-rc.1"):
        assert is_valid_tag(tag)


DIFFERENT = {f"validname@sha512:{F64}{F64}": f"docker.io/library/validname@sha512:{F64}{F64}"}
"""Rows of the table with another outcome here: sha512 is always understood, there only where a program registers it."""


def _table() -> list[dict[str, str]]:
    folder = data_dir()
    if folder is None:
        return [{"input": "no table"}]
    rows: list[dict[str, str]] = json.loads((folder / "tables" / "reference_parse.json").read_text())
    return rows


@needs_data
def test_the_table_of_the_reference_library_is_there() -> None:
    assert len(_table()) > 40


@needs_data
@pytest.mark.parametrize("row", _table(), ids=lambda row: row["input"][:60])
def test_parsing_agrees_with_the_reference_library(row: dict[str, str]) -> None:
    """The table is for the raw grammar: ``repository`` there is the whole name, before familiar names are completed."""
    typed = row["input"]
    if typed in DIFFERENT:
        assert str(Reference.parse(typed)) == DIFFERENT[typed]
        return
    if "error" in row:
        with pytest.raises(InvalidReference) as caught:
            Reference.parse(typed)
        phrase = {
            "ErrNameEmpty": "must have at least one component",
            "ErrNameContainsUppercase": "must be lowercase",
            "ErrNameTooLong": "must not be more than 255 characters",
            "digest.ErrDigestUnsupported": "unsupported digest algorithm",
            "digest.ErrDigestInvalidLength": "invalid checksum digest length",
            "ErrReferenceInvalidFormat": "",
        }[row["error"]]
        assert phrase in caught.value.reason
        return
    reference = Reference.parse(typed)
    assert reference.tag == row.get("tag")
    assert str(reference.digest or "") == row.get("digest", "")
    if reference.registry == row.get("domain"):
        assert reference.name == row["repository"]
    else:
        # Completed by the familiar rules: the whole raw name is a repository of the default registry.
        assert reference.name in (f"docker.io/library/{row['repository']}", f"docker.io/{row['repository']}")
        assert reference.familiar_name == row["repository"]


# ---- laws ----

_alphanumeric = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=4)
_component = st.builds(
    lambda first, rest: first + "".join(separator + part for separator, part in rest),
    _alphanumeric,
    st.lists(st.tuples(st.sampled_from([".", "_", "__", "-", "---"]), _alphanumeric), max_size=2),
)
_repository = st.lists(st.one_of(_component, st.sampled_from(["library", "localhost", "docker.io", F64])), min_size=1)
_domain = st.sampled_from(
    [
        "",
        "docker.io/",
        "index.docker.io/",
        "localhost/",
        "localhost:5000/",
        "gcr.io/",
        "[::1]:5/",
        "HOST/",
        "Docker.io/",
    ]
)
_tag = st.one_of(st.just(""), st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}", fullmatch=True))
_digest = st.one_of(st.just(""), st.binary(max_size=3).map(lambda data: f"@{Digest.of(data)}"))
_written = st.builds(
    lambda domain, parts, tag, digest: f"{domain}{'/'.join(parts[:4])}{tag}{digest}",
    _domain,
    _repository,
    _tag,
    _digest,
)


@given(_written)
@settings(max_examples=300, deadline=None)
def test_both_forms_of_a_reference_mean_the_same_when_parsed_again(typed: str) -> None:
    try:
        reference = Reference.parse(typed)
    except InvalidReference:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar) == reference
    assert Reference.parse(reference.familiar_name).name == reference.name
    assert len(reference.familiar) <= len(str(reference))


@given(st.one_of(st.text(), st.text("aA0.:/@_-[]%\n é", max_size=30), _written.map(lambda text: text + ":"), _written))
@settings(max_examples=500, deadline=None)
def test_any_text_gives_a_reference_or_one_kind_of_error(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except InvalidReference as error:
        assert str(error).isprintable()  # noqa: PT017 - nothing raised is as good
    else:
        assert ".." not in reference.name.split("/")
