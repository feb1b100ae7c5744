"""One layer in one pass, and one image all or nothing."""

import errno
import gzip
import io
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from imagefs.errors import ContentError, DigestMismatch, DiskFull, InvalidLayer, RegistryUnavailable
from imagefs.layer.index import decode, encode
from imagefs.layer.tar import scan
from imagefs.oci.config import parse_config
from imagefs.oci.descriptor import Descriptor
from imagefs.oci.digest import DiffId, Digest, verified
from imagefs.oci.manifest import Manifest, parse_manifest
from imagefs.oci.reference import Reference
from imagefs.store.content import LayerIngest
from imagefs.store.store import Store
from imagefs.transfer import layer_ingest
from imagefs.transfer.image_ingest import ingest_image
from imagefs.transfer.layer_ingest import ingest_layer
from imagefs.transfer.progress import Reporter
from imagefs.transfer.selection import Selected
from tests.support.built_images import BuiltImage, image, sha256, tar

LAYER = tar({"etc/motd": b"hello\n", "etc/.wh.old": b""})
NAME = Reference.parse("x:1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


def pieces(data: bytes, size: int = 100) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def left_behind(store: Store) -> list[str]:
    return [
        str(path.relative_to(store.path))
        for kind in ("ingest", "layers", "blobs")
        for path in (store.path / kind).rglob("*")
        if path.is_file()
    ]


def ingest(store: Store, blob: bytes, diff_id: str, *, blob_digest: str | None = None, is_big: bool = False) -> None:
    chunks = verified(pieces(blob), Digest.parse(blob_digest or sha256(blob)), -1, what="layer")
    with store.writing():
        ingest_layer(
            store,
            chunks,
            diff_id=DiffId(Digest.parse(diff_id)),
            name="the-layer",
            advance=lambda _: None,
            proceed=lambda: None,
            size=(1 << 24) if is_big else 0,
        )


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_layer_is_kept_uncompressed_with_its_index(store: Store, compress: Callable[[bytes], bytes]) -> None:
    ingest(store, compress(LAYER), sha256(LAYER))
    diff_id = DiffId(Digest.of(LAYER))
    assert store.layer_path(diff_id).read_bytes() == LAYER
    changeset = decode(store.layer_index(diff_id), diff_id)
    assert [entry.path for entry in changeset.entries] == [b"etc/motd"]
    assert changeset.whiteouts == {b"etc/old"}


def test_a_big_layer_is_scanned_elsewhere_with_the_same_result(store: Store) -> None:
    ingest(store, gzip.compress(LAYER), sha256(LAYER), is_big=True)
    diff_id = DiffId(Digest.of(LAYER))
    assert store.layer_path(diff_id).read_bytes() == LAYER
    assert store.layer_index(diff_id) == encode(scan([LAYER]), diff_id)


def test_where_no_process_can_be_started_a_big_layer_is_scanned_here(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, diff_id: DiffId) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(layer_ingest, "ScanProcess", refuse)
    ingest(store, LAYER, sha256(LAYER), is_big=True)
    diff_id = DiffId(Digest.of(LAYER))
    assert store.layer_index(diff_id) == encode(scan([LAYER]), diff_id)


def test_a_wrong_diff_id_keeps_nothing(store: Store) -> None:
    with pytest.raises(DigestMismatch, match="the-layer"):
        ingest(store, gzip.compress(LAYER), sha256(b"other"))
    assert left_behind(store) == []


def test_a_wrong_blob_is_called_so_even_where_it_breaks_the_tar_first(store: Store) -> None:
    broken = b"\xff" * 4096 + LAYER
    with pytest.raises(DigestMismatch, match="layer verification failed"):
        ingest(store, broken, sha256(LAYER), blob_digest=sha256(LAYER))
    assert left_behind(store) == []


@pytest.mark.parametrize(
    "blob",
    [gzip.compress(LAYER)[:-20], b"\xff" * 1024, b"no tar at all" * 100, LAYER[:515], gzip.compress(b"x" * 5000)],
)
@pytest.mark.parametrize("is_big", [False, True])
def test_what_is_no_complete_tar_is_refused_by_name(store: Store, blob: bytes, is_big: bool) -> None:
    with pytest.raises(ContentError) as caught:
        ingest(store, blob, sha256(LAYER), is_big=is_big)
    assert isinstance(caught.value, InvalidLayer)
    assert "the-layer" in str(caught.value)
    assert left_behind(store) == []


def test_a_bomb_takes_bounded_memory_and_stops_when_told(store: Store) -> None:
    zeros = zlib.compressobj(9, wbits=31)
    bomb = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(256)) + zeros.flush()
    seen = 0

    class Enough(Exception):
        pass

    def proceed() -> None:
        nonlocal seen
        seen += 1
        if seen > 64:
            raise Enough

    tracemalloc.start()
    try:
        with pytest.raises((Enough, InvalidLayer)), store.writing():
            ingest_layer(
                store,
                iter([bomb]),
                diff_id=DiffId(Digest.of(LAYER)),
                advance=lambda _: None,
                proceed=proceed,
            )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert left_behind(store) == []


# ---- images ----


class Shelf:
    """A source over built images that counts how often each layer is read."""

    label = "shelf"

    def __init__(self, *images: BuiltImage) -> None:
        self.contents = {sha256(blob): blob for one in images for blob in one.blobs}
        self.reads: list[str] = []

    def has(self, descriptor: Descriptor) -> bool:
        return True

    def document(self, descriptor: Descriptor, *, limit_bytes: int, what: str) -> bytes:
        raise AssertionError("documents were read when the image was selected")

    def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        self.reads.append(str(descriptor.digest))
        yield from verified(
            pieces(self.contents[str(descriptor.digest)]), descriptor.digest, descriptor.size, what="layer"
        )


def selected(one: BuiltImage) -> Selected:
    manifest = parse_manifest(one.manifest)
    assert isinstance(manifest, Manifest)
    return Selected(manifest, parse_config(one.config), mismatch=False)


def accept(_: Sequence[DiffId]) -> None:
    pass


def quiet() -> Reporter:
    return Reporter(io.StringIO(), io.StringIO(), quiet=True)


def tars(count: int) -> list[bytes]:
    return [tar({f"file{number}": bytes([number])}) for number in range(count)]


def test_layers_that_are_there_or_come_twice_are_read_once(store: Store) -> None:
    first, second, third = tars(3)
    base = image([first])
    above = image([first, second, third, second])
    source = Shelf(base, above)
    ingest_image(source, store, selected(base), references=(NAME,), check=accept, reporter=quiet())
    out = io.StringIO()
    result = ingest_image(
        source, store, selected(above), references=(NAME,), check=accept, reporter=Reporter(out, io.StringIO())
    )
    assert sorted(source.reads) == sorted(sha256(gzip.compress(raw, mtime=0)) for raw in (first, second, third))
    assert [str(diff_id) for diff_id in result.diff_ids] == [sha256(raw) for raw in (first, second, third, second)]
    assert [line.split(": ")[1] for line in out.getvalue().splitlines()][:4] == [
        "Already exists",
        "Pulling fs layer",
        "Pulling fs layer",
        "Already exists",
    ]


def test_an_image_without_layers_is_an_image(store: Store) -> None:
    one = image([])
    result = ingest_image(Shelf(one), store, selected(one), references=(NAME,), check=accept, reporter=quiet())
    assert store.image("x:1").id == result.id


def test_a_union_that_is_refused_never_becomes_visible(store: Store) -> None:
    one = image(tars(2))

    def refuse(diff_ids: Sequence[DiffId]) -> None:
        assert all(store.layer_index(diff_id) for diff_id in diff_ids)
        raise InvalidLayer("hard link to nothing")

    with pytest.raises(InvalidLayer, match="hard link to nothing"):
        ingest_image(Shelf(one), store, selected(one), references=(NAME,), check=refuse, reporter=quiet())
    assert store.images() == ()
    assert left_behind(store) == []


def test_one_bad_layer_leaves_nothing(store: Store) -> None:
    layers = tars(6)
    one = image(layers, diff_ids=[*map(sha256, layers[:5]), sha256(b"another")])
    with pytest.raises(DigestMismatch):
        ingest_image(Shelf(one), store, selected(one), references=(NAME,), check=accept, reporter=quiet())
    assert store.images() == ()
    assert left_behind(store) == []


def test_layers_complete_before_the_network_failed_serve_the_next_attempt(store: Store) -> None:
    one = image(tars(2))

    class Flaky(Shelf):
        def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
            if str(descriptor.digest) == sha256(one.blobs[1]) and failing.is_set():
                first.wait(timeout=20)
                raise RegistryUnavailable("gone")
            yield from super().blob(descriptor)

    failing = threading.Event()
    failing.set()
    first = threading.Event()

    source = Flaky(one)
    out = io.StringIO()

    class Out(io.StringIO):
        def write(self, text: str) -> int:
            if "Pull complete" in text:
                first.set()
            return out.write(text)

    with pytest.raises(RegistryUnavailable):
        ingest_image(
            source,
            store,
            selected(one),
            references=(NAME,),
            check=accept,
            reporter=Reporter(Out(), io.StringIO()),
        )
    assert store.images() == ()
    assert list((store.path / "ingest").iterdir()) == []
    failing.clear()
    source.reads.clear()
    ingest_image(source, store, selected(one), references=(NAME,), check=accept, reporter=quiet())
    assert source.reads == [sha256(one.blobs[1])]
    assert len(store.image("x:1").diff_ids) == 2


def test_a_moved_tag_stays_where_it_was_when_the_new_image_fails(store: Store) -> None:
    good = image(tars(1))
    before = ingest_image(Shelf(good), store, selected(good), references=(NAME,), check=accept, reporter=quiet())
    layers = tars(3)
    bad = image(layers, diff_ids=[*map(sha256, layers[:2]), sha256(b"another")])
    with pytest.raises(DigestMismatch):
        ingest_image(Shelf(bad), store, selected(bad), references=(NAME,), check=accept, reporter=quiet())
    assert store.image("x:1") == before
    assert store.has_layer(before.diff_ids[0])


@pytest.mark.parametrize("cut", [1, 8])
def test_a_blob_that_ends_before_its_checksum_is_refused_though_its_tar_is_whole(store: Store, cut: int) -> None:
    with pytest.raises(InvalidLayer, match="the-layer"):
        ingest(store, gzip.compress(LAYER)[:-cut], sha256(LAYER))
    assert left_behind(store) == []


def ingest_chunks(store: Store, chunks: Iterator[bytes], **options: Any) -> None:
    with store.writing():
        ingest_layer(
            store,
            chunks,
            diff_id=DiffId(Digest.of(LAYER)),
            **{"advance": lambda _: None, "proceed": lambda: None, **options},
        )


def test_a_broken_layer_without_end_is_read_on_up_to_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_ingest, "_DRAIN_LIMIT_BYTES", 10 << 10)
    arrived: list[int] = []

    def chunks() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b"\xff" * 1024

    with pytest.raises(InvalidLayer):
        ingest_chunks(store, chunks(), advance=arrived.append)
    assert len(arrived) < 5000


def test_a_layer_that_the_disk_has_no_room_for_is_not_begun(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[int] = []
    with pytest.raises(DiskFull):
        ingest_chunks(store, pieces(LAYER), advance=arrived.append, size=1 << 60)
    assert arrived == []


def test_the_rest_of_a_blob_is_announced_to_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[int] = []
    monkeypatch.setattr(LayerIngest, "expect", lambda _self, left: announced.append(left))
    ingest_chunks(store, pieces(LAYER, 1000), size=len(LAYER) - 1)
    assert announced == [max(0, len(LAYER) - 1 - done) for done in (*range(1000, len(LAYER), 1000), len(LAYER))]


def test_a_layer_counts_as_received_before_it_is_durable(store: Store) -> None:
    is_there: list[bool] = []
    diff_id = DiffId(Digest.of(LAYER))
    ingest_chunks(store, pieces(LAYER), received=lambda: is_there.append(store.layer_path(diff_id).exists()))
    assert is_there == [False]
    assert store.layer_path(diff_id).exists()
