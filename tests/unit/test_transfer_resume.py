"""Layers over a network: taken up where an attempt before ended, and downloaded once, whoever else wants them."""

import contextlib
import errno
import io
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from imagefs.cli.pull import union_check
from imagefs.errors import DigestMismatch, InvalidLayer, RegistryUnavailable
from imagefs.oci.digest import DiffId, Digest
from imagefs.oci.platform import Platform
from imagefs.oci.reference import Reference
from imagefs.registry.client import RegistryClient
from imagefs.registry.retry import RetryPolicy
from imagefs.store.partial import Partial
from imagefs.store.store import Store
from imagefs.transfer.image_ingest import UnionCheck
from imagefs.transfer.progress import Reporter
from imagefs.transfer.pull import foretell, pull
from tests.support.built_images import image, sha256, tar
from tests.support.registry import Handler, Registry

ONE = image([tar({"small": b"1"}), tar({"big": bytes(range(256)) * 4000})], compress=False)
SMALL, BIG = ONE.blobs
HALF = len(BIG) // 2
NO_RETRY = RetryPolicy(attempts=1)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as opened:
        opened.put("x", ONE, "1")
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


def accept(_: Sequence[DiffId]) -> None:
    pass


def pulled(
    store: Store,
    registry: Registry,
    *,
    out: io.StringIO | None = None,
    dry_run: bool = False,
    check: UnionCheck = accept,
    name: str = "x",
) -> list[str]:
    out = out or io.StringIO()
    client = RegistryClient(registry.host, retry=NO_RETRY)
    platform = Platform("linux", "amd64")
    reporter = Reporter(out, io.StringIO())
    reference = Reference.parse(f"{registry.host}/{name}:1")
    with contextlib.closing(client):
        if dry_run:
            foretell(store, reference, client=client, platform=platform, reporter=reporter)
        else:
            pull(store, reference, client=client, platform=platform, check=check, reporter=reporter)
    return out.getvalue().splitlines()


def is_whole(store: Store) -> bool:
    (one,) = store.images()
    contents = [store.layer_path(diff_id).read_bytes() for diff_id in one.diff_ids]
    return contents == list(ONE.tars) and not list((store.path / "partial").iterdir())


def ranges(registry: Registry, blob: bytes) -> list[str | None]:
    return [seen.headers.get("range") for seen in registry.asked(sha256(blob))]


def claimed(store: Store, blob: bytes) -> Partial:
    partial = store.claim_partial(Digest.of(blob))
    assert partial is not None
    return partial


def keep(store: Store, blob: bytes, data: bytes) -> None:
    partial = claimed(store, blob)
    partial.append(data)
    partial.close()


def breaking_off(handler: Handler) -> bool:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BIG)))
    handler.end_headers()
    handler.wfile.write(BIG[:HALF])
    handler.close_connection = True
    return True


def test_a_pull_that_was_cut_off_asks_the_next_time_for_the_rest(store: Store, registry: Registry) -> None:
    registry.fault(sha256(BIG), breaking_off)
    with pytest.raises(RegistryUnavailable):
        pulled(store, registry)
    assert store.partial_size(Digest.of(BIG)) == HALF
    assert f"{Digest.of(BIG).short}: Resuming after {HALF / 1000:.1f} kB" in pulled(store, registry)
    assert ranges(registry, BIG) == [None, f"bytes={HALF}-"]
    assert is_whole(store)


def test_what_is_all_there_is_not_asked_for(store: Store, registry: Registry) -> None:
    keep(store, BIG, BIG)
    pulled(store, registry)
    assert ranges(registry, BIG) == []
    assert is_whole(store)


def test_a_server_that_ignores_the_range_is_read_from_its_beginning(store: Store, registry: Registry) -> None:
    registry.ranges = False
    keep(store, BIG, BIG[:HALF])
    pulled(store, registry)
    assert ranges(registry, BIG) == [f"bytes={HALF}-"]
    assert is_whole(store)


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(BIG[:1000] + bytes(1000) + BIG[2000:HALF], id="other bytes in a file"),
        pytest.param(b"\xff" * HALF, id="no tar at all"),
        pytest.param(bytes(len(BIG)), id="as long as the blob"),
    ],
)
def test_what_was_kept_and_is_damaged_is_downloaded_again_once(there: bytes, store: Store, registry: Registry) -> None:
    keep(store, BIG, there)
    assert [line for line in pulled(store, registry) if "What was kept is damaged" in line]
    assert ranges(registry, BIG)[-1] is None
    assert is_whole(store)


def test_what_breaks_off_again_is_kept_once(store: Store, registry: Registry) -> None:
    def break_again(handler: Handler) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {HALF}-{len(BIG) - 1}/{len(BIG)}")
        handler.send_header("Content-Length", str(len(BIG) - HALF))
        handler.end_headers()
        handler.wfile.write(BIG[HALF : HALF + 1000])
        handler.close_connection = True
        return True

    registry.fault(sha256(BIG), breaking_off, break_again)
    for _ in range(2):
        with pytest.raises(RegistryUnavailable):
            pulled(store, registry)
    partial = claimed(store, BIG)
    assert b"".join(partial.chunks()) == BIG[: HALF + 1000]
    partial.close()
    pulled(store, registry)
    assert ranges(registry, BIG) == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert is_whole(store)


def test_what_a_disk_refuses_to_keep_is_removed(
    store: Store, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, BIG, BIG[:HALF])

    def refuse(_: Partial, __: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Partial, "append", refuse)
    monkeypatch.setattr(Store, "drop_partial", lambda *_: None)  # which would hide what `download_layer` left
    with pytest.raises(OSError, match="no space"):
        pulled(store, registry)
    assert store.partial_size(Digest.of(BIG)) == 0


def test_a_dry_run_does_not_count_what_cannot_be_used(store: Store, registry: Registry) -> None:
    keep(store, BIG, BIG + b"x")
    lines = pulled(store, registry, dry_run=True)
    assert lines[-1].startswith(f"Would download {len(SMALL) + len(BIG)} bytes")


def test_what_is_longer_than_the_blob_is_not_used(store: Store, registry: Registry) -> None:
    keep(store, BIG, BIG + b"x")
    pulled(store, registry)
    assert ranges(registry, BIG) == [None]
    assert is_whole(store)


def test_a_blob_that_changed_is_an_error_after_one_more_attempt(store: Store, registry: Registry) -> None:
    keep(store, BIG, BIG[:HALF])
    registry.blobs[sha256(BIG)] = BIG[:-1] + b"\1"
    with pytest.raises(DigestMismatch):
        pulled(store, registry)
    assert ranges(registry, BIG) == [f"bytes={HALF}-", None]
    assert store.images() == ()
    wrong = store.path / "partial" / sha256(BIG).replace(":", "-")
    assert not wrong.exists()  # the other layer may have been stopped on its way: what came of it stays


def test_a_wrong_layer_costs_neither_finished_layers_nor_begun_ones(store: Store, registry: Registry) -> None:
    contents = [tar({name: bytes(range(256)) * 8000}) for name in ("a", "b", "c")]
    three = image(contents, compress=False)
    registry.put("three", three, "1")
    first, wrong, slow = three.blobs
    over = threading.Event()

    def begin(handler: Handler) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(slow)))
        handler.end_headers()
        handler.wfile.write(slow[: len(slow) // 2])
        handler.wfile.flush()
        over.wait(timeout=20)
        handler.close_connection = True
        return True

    def lie_after_the_others(handler: Handler) -> bool:
        for _ in range(400):
            if store.has_layer(DiffId(Digest.of(contents[0]))) and store.partial_size(Digest.of(slow)):
                break
            over.wait(timeout=0.05)
        handler.answer(200, wrong[:-1] + b"\1")
        return True

    registry.fault(sha256(slow), begin)
    registry.fault(sha256(wrong), lie_after_the_others)
    with pytest.raises(DigestMismatch):
        pulled(store, registry, name="three")
    assert store.images() == ()
    over.set()
    pulled(store, registry, name="three")
    assert len(store.images()) == 1
    assert ranges(registry, first) == [None]
    assert ranges(registry, wrong) == [None, None]
    assert None not in ranges(registry, slow)[1:]


def test_content_that_is_to_blame_leaves_nothing_of_the_other_layers_either(store: Store, registry: Registry) -> None:
    one = image([b"\xff" * 2048, ONE.tars[1]], compress=False)
    registry.put("broken", one, "1")
    keep(store, BIG, BIG[:HALF])
    registry.fault(sha256(BIG), lambda _: threading.Event().wait(timeout=0.3))  # the other one fails meanwhile
    with pytest.raises(InvalidLayer):
        pulled(store, registry, name="broken")
    assert store.images() == ()
    assert list((store.path / "partial").iterdir()) == []


class Noticing(io.StringIO):
    """Text that is waited for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.seen = threading.Event()

    def write(self, text: str) -> int:
        if self._text in text:
            self.seen.set()
        return super().write(text)


@contextlib.contextmanager
def pull_that_waits(store: Store, registry: Registry) -> Iterator[list[BaseException]]:
    """Begin to pull; go on when that waits for somebody else, and on leaving wait until it is done."""
    out = Noticing("Waiting")
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with Store.open(store.path) as another:
                pulled(another, registry, out=out)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert out.seen.wait(timeout=20)
        yield errors
    finally:
        thread.join(timeout=20)
    assert not thread.is_alive()


def test_what_somebody_else_downloads_is_waited_for_and_used(store: Store, registry: Registry) -> None:
    partial = claimed(store, BIG)
    with store.writing(), pull_that_waits(store, registry) as errors:
        with store.new_layer() as layer:
            layer.write(BIG)
            layer.commit(DiffId(Digest.of(BIG)), b"index")
        partial.discard()
    assert errors == []
    assert ranges(registry, BIG) == []
    assert len(registry.asked(sha256(SMALL))) == 1
    assert is_whole(store)


def test_where_the_other_one_ends_early_its_work_is_gone_on_with(store: Store, registry: Registry) -> None:
    partial = claimed(store, BIG)
    partial.append(BIG[:HALF])
    with pull_that_waits(store, registry) as errors:
        partial.close()
    assert errors == []
    assert ranges(registry, BIG) == [f"bytes={HALF}-"]
    assert is_whole(store)


def test_what_is_kept_of_a_layer_that_is_there_goes(store: Store, registry: Registry) -> None:
    pulled(store, registry)
    keep(store, BIG, BIG)
    pulled(store, registry)
    assert is_whole(store)


def test_a_damaged_index_that_was_left_does_no_harm(store: Store, registry: Registry) -> None:
    left = store.index_path(DiffId(Digest.of(BIG)))
    left.write_bytes(b"damaged")
    pulled(store, registry, check=union_check(store))
    assert is_whole(store)
    assert left.read_bytes() != b"damaged"


def test_a_dry_run_says_what_is_there_and_what_is_not(store: Store, registry: Registry) -> None:
    keep(store, BIG, BIG[:HALF])
    small, big = Digest.of(SMALL).short, Digest.of(BIG).short
    missing = len(SMALL) + len(BIG) - HALF
    assert pulled(store, registry, dry_run=True)[-3:] == [
        f"{small}: To download, {len(SMALL) / 1000:.1f} kB",
        f"{big}: To download, {len(BIG) / 1e6:.1f} MB, {HALF / 1000:.1f} kB of it already there",
        f"Would download {missing} bytes ({missing / 1000:.1f} kB)",
    ]
    assert not registry.asked(sha256(BIG)) + registry.asked(sha256(SMALL))
    assert store.images() == ()
    pulled(store, registry)
    assert pulled(store, registry, dry_run=True)[-3:] == [
        f"{small}: Already exists",
        f"{big}: Already exists",
        "Would download 0 bytes (0.0 B)",
    ]
