import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagefs.errors import DigestMismatch, InvalidDigest, SizeMismatch
from imagefs.oci.digest import DiffId, Digest, chain_ids, verified

HEX = hashlib.sha256(b"x").hexdigest()


def test_digest_of_known_content() -> None:
    assert str(Digest.of(b"")) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Digest.of(b"", "sha512").hex == hashlib.sha512(b"").hexdigest()
    assert Digest.parse(f"sha256:{HEX}") == Digest.of(b"x")
    assert Digest.of(b"x").short == HEX[:12]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no colon"),
        (HEX, "no colon"),
        (":", "unsupported digest algorithm"),
        ("sha256:", "64 hex digits, found 0"),
        (f"sha256:{HEX[:-1]}", "64 hex digits, found 63"),
        (f"sha256:{HEX}0", "64 hex digits, found 65"),
        (f"sha512:{HEX}", "128 hex digits, found 64"),
        (f"sha256:{HEX.upper()}", "lower case"),
        (f"SHA256:{HEX}", "lower case"),
        ("sha256:../../../../etc/passwd", "something else than hex digits"),
        (f"sha256:{HEX}\n", "something else than hex digits"),
        (f"sha256:{'١' * 64}", "something else than hex digits"),
        (f" sha256:{HEX}", "unsupported"),
        (f"md5:{'0' * 32}", "unsupported digest algorithm 'md5'"),
        (f"blake3:{HEX}", "unsupported digest algorithm"),
    ],
)
def test_text_that_is_no_digest_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidDigest) as caught:
        Digest.parse(text)
    assert reason in str(caught.value)


def test_no_way_of_making_a_digest_skips_the_check() -> None:
    with pytest.raises(InvalidDigest):
        Digest("sha256", "../x")
    with pytest.raises(InvalidDigest):
        Digest.of(b"", "md5")


def test_chain_ids_follow_the_specification() -> None:
    a, b, c = (DiffId(Digest.of(name)) for name in (b"a", b"b", b"c"))
    ab = Digest.of(f"{a} {b}".encode())
    assert chain_ids([]) == ()
    assert [str(name) for name in chain_ids([a, b, c])] == [str(a), str(ab), str(Digest.of(f"{ab} {c}".encode()))]


def test_digests_sort_by_algorithm_then_hex() -> None:
    digests = [Digest("sha512", "0" * 128), Digest("sha256", "f" * 64), Digest("sha256", "0" * 64)]
    assert sorted(digests) == digests[::-1]


@given(st.lists(st.binary(max_size=20)), st.sampled_from(["sha256", "sha512"]), st.booleans())
@settings(max_examples=50, deadline=None)
def test_verified_passes_the_right_content_through(chunks: list[bytes], algorithm: str, size_known: bool) -> None:
    content = b"".join(chunks)
    size = len(content) if size_known else -1
    assert b"".join(verified(chunks, Digest.of(content, algorithm), size, what="layer")) == content


def test_verified_never_passes_on_more_than_was_promised() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"1234"

    seen: list[bytes] = []
    with pytest.raises(SizeMismatch, match="expected 10 bytes, got more"):
        seen.extend(verified(endless(), Digest.of(b"x"), 10, what="layer"))
    assert seen == [b"1234", b"1234"]


def test_verified_tells_short_content_from_wrong_content() -> None:
    digest = Digest.of(b"right")
    with pytest.raises(SizeMismatch, match="only 3"):
        list(verified([b"rig"], digest, 5, what="layer"))
    with pytest.raises(DigestMismatch, match="layer verification failed"):
        list(verified([b"wrong"], digest, 5, what="layer"))
    with pytest.raises(DigestMismatch):
        list(verified([], digest, -1, what="layer"))
