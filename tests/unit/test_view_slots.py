"""Numbers given once: a successor that reads the journal gives the same."""

import pytest

from imagefs.oci.digest import DiffId, Digest
from imagefs.overlay.stored import Stack
from imagefs.view.namespace import Document
from imagefs.view.slots import Binding, Slots

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")
LAYERS = DiffId(Digest.of(b"a")), DiffId(Digest.of(b"b"))


def test_a_successor_gives_the_same_numbers_and_goes_on_after_them() -> None:
    journal: list[str] = []
    first = Slots((), journal.append)
    given = [
        first.name(b""),
        first.name(b"app"),
        first.binding(b"app/1", ONE, Stack(LAYERS)),
        first.layer(LAYERS[1]),
        first.name(b"odd\xff\n"),
        first.layer(LAYERS[0]),
        first.binding(b"app/1", TWO, Stack(LAYERS[:1])),
    ]
    assert given == [1, 2, 1, 2, 3, 3, 4]
    told = len(journal)
    second = Slots(list(journal), journal.append)
    assert second.binding(b"app/1", TWO, Stack(LAYERS[:1])) == 4
    assert second.layer(LAYERS[1]) == 2
    assert second.path(3) == b"odd\xff\n"
    assert second.what(1) == Binding(b"app/1", ONE, Stack(LAYERS))
    assert second.what(3) == LAYERS[0]
    assert len(journal) == told, "what is known is not noted again"
    assert second.name(b"new") == 4
    assert second.layer(DiffId(ONE)) == 5
    assert [slot for slot, _ in second.bindings()] == [1, 4]
    assert len(journal) == told + 2


def test_the_journal_knows_a_number_before_anybody_does() -> None:
    class Full(Exception):
        pass

    def note(_line: str) -> None:
        raise Full

    slots = Slots((), note)
    for _ in range(2):  # a number that was given without a note would be there the second time
        with pytest.raises(Full):
            slots.name(b"app")
        with pytest.raises(Full):
            slots.layer(LAYERS[0])
        with pytest.raises(Full):
            slots.binding(b"app/1", ONE, Stack(LAYERS))
        with pytest.raises(Full):
            slots.document(Document(ONE, 5))


def test_a_successor_knows_a_layer_by_itself_from_an_image_of_only_that_layer() -> None:
    journal: list[str] = []
    first = Slots((), journal.append)
    alone = first.binding(b".imagefs/layers/a", LAYERS[0], Stack(LAYERS[:1], alone=True))
    union = first.binding(b"app/1", ONE, Stack(LAYERS[:1]))
    second = Slots(journal)
    assert second.what(alone) == Binding(b".imagefs/layers/a", LAYERS[0], Stack(LAYERS[:1], alone=True))
    assert second.what(union) == Binding(b"app/1", ONE, Stack(LAYERS[:1], alone=False))
    assert Stack(LAYERS[:1], alone=True) != Stack(LAYERS[:1], alone=False)


def test_a_successor_knows_documents() -> None:
    journal: list[str] = []
    first = Slots((), journal.append)
    documents = [Document(ONE, 5), Document(TWO, 5), Document(ONE, 6)]
    numbers = [first.document(document) for document in documents]
    assert len(set(numbers)) == 3
    assert Slots(journal).documents() == list(zip(numbers, documents, strict=True))
