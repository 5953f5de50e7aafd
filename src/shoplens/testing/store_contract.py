"""The contract of all stores, as tests: subclass `StoreContract` and define a fixture `store` that is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shoplens.errors import BlobNotFound, RequestInvalid
from shoplens.storage import Store

KEY = "images/ab/cd/abcd.jpg"
OTHER = "images/ef/abcd.jpg"


class StoreContract:
    """The tests that every implementation passes. `store` is empty at the start of each."""

    def test_a_blob_comes_back_as_it_was_put(self, store: Store) -> None:
        """Any bytes, empty ones too."""
        blobs = {"images/a.bin": bytes(range(256)) * 5000, "images/b": b"", "c.txt": b"\r\n\0"}
        for key, data in blobs.items():
            store.put(key, data)
        assert blobs == {key: store.get(key) for key in blobs}

    def test_a_missing_blob_is_an_error_with_its_key(self, store: Store) -> None:
        """As an error of its own kind."""
        with pytest.raises(BlobNotFound, match=r"abcd\.jpg"):
            store.get(KEY)

    def test_existence_follows_putting_and_deleting(self, store: Store) -> None:
        """Deleting what is not there is harmless."""
        seen = [store.exists(KEY)]
        store.put(KEY, b"photo")
        seen.append(store.exists(KEY))
        store.delete(KEY)
        store.delete(KEY)
        seen.append(store.exists(KEY))
        assert [False, True, False] == seen

    def test_a_folder_is_not_a_blob(self, store: Store) -> None:
        """Although a blob is below it."""
        store.put(KEY, b"photo")
        assert not store.exists("images/ab")
        with pytest.raises(BlobNotFound):
            store.get("images/ab")

    def test_putting_again_is_harmless(self, store: Store) -> None:
        """Same key, same bytes, same outcome."""
        for _ in range(3):
            store.put(KEY, b"photo")
        assert (b"photo", [KEY]) == (store.get(KEY), list(store.list("")))

    def test_a_blob_of_another_size_is_replaced(self, store: Store) -> None:
        """So a blob that a loss of power cut short is healed by the next upload of the same photo."""
        store.put(KEY, b"")
        store.put(KEY, b"photo")
        assert b"photo" == store.get(KEY)

    def test_a_list_holds_what_lies_below_the_folder(self, store: Store) -> None:
        """By whole segments, at any depth, whether or not the folder ends with a slash."""
        keys = {"images/ab/1.jpg", "images/ab/cd/2.jpg", "images/abc/3.jpg", "other/4.jpg"}
        for key in keys:
            store.put(key, b"x")
        assert {"images/ab/1.jpg", "images/ab/cd/2.jpg"} == set(store.list("images/ab"))
        assert keys - {"other/4.jpg"} == set(store.list("images/"))
        assert keys == set(store.list(""))

    def test_a_list_of_nothing_is_empty(self, store: Store) -> None:
        """A folder that was never made is no error."""
        assert [] == list(store.list("images"))

    def test_a_check_passes_and_leaves_no_image(self, store: Store) -> None:
        """Also when it is repeated."""
        store.check()
        store.check()
        assert [] == list(store.list("images"))

    def test_durable_blobs_come_back_as_they_were_put(self, store: Store) -> None:
        """Once, again, and after a shorter one."""
        store.put(KEY, b"pho", durable=True)
        for _ in range(2):
            store.put(KEY, b"photo", durable=True)
        store.put("empty", b"", durable=True)
        assert (b"photo", b"") == (store.get(KEY), store.get("empty"))

    def test_pieces_become_one_blob(self, store: Store) -> None:
        """None, one and many of them, over what was there before."""
        for pieces in ([], [b"photo"], [bytes([number]) * 300_000 for number in range(40)]):
            store.put_pieces(KEY, iter(pieces))
            assert b"".join(pieces) == store.get(KEY)
        assert [KEY] == list(store.list(""))

    def test_pieces_that_end_early_leave_nothing(self, store: Store) -> None:
        """The caller gets the error, and no half blob can be read."""

        def cut_short() -> Iterator[bytes]:
            yield bytes(100_000)
            raise RuntimeError("the source is missing")

        with pytest.raises(RuntimeError, match="the source is missing"):
            store.put_pieces(KEY, cut_short())
        assert (False, []) == (store.exists(KEY), list(store.list("")))

    def test_a_large_blob_comes_and_goes_in_pieces(self, store: Store) -> None:
        """More than one part of an upload; a small one and an empty one too."""
        large = [bytes([number]) * 1_000_003 for number in range(19)]
        for data in (large, [b"photo"], []):
            store.put_pieces(KEY, iter(data))
            assert b"".join(data) == b"".join(store.pieces(KEY)) == store.get(KEY)
        with pytest.raises(BlobNotFound, match="missing"):
            list(store.pieces("missing"))

    def test_a_large_upload_that_ends_early_leaves_what_was_there(self, store: Store) -> None:
        """Also when parts of it are there already."""
        store.put(KEY, b"photo")

        def cut_short() -> Iterator[bytes]:
            yield from (bytes(4_000_000) for _ in range(5))
            raise RuntimeError("the source is missing")

        with pytest.raises(RuntimeError, match="the source is missing"):
            store.put_pieces(KEY, cut_short())
        assert (b"photo", [KEY]) == (store.get(KEY), list(store.list("")))

    def test_a_blob_is_written_only_over_the_version_that_was_seen(self, store: Store) -> None:
        """Nothing is a version too."""
        assert store.version(KEY) is None
        assert store.put_if(KEY, b"one", seen=None)
        assert not store.put_if(KEY, b"two", seen=None)
        first = store.version(KEY)
        assert store.put_if(KEY, b"new", seen=first)
        assert not store.put_if(KEY, b"old", seen=first)
        assert (b"new", True) == (store.get(KEY), store.version(KEY) not in {None, first})
        assert not store.put_if("elsewhere", b"x", seen=first)
        assert [KEY] == list(store.list(""))

    @pytest.mark.parametrize("exists", [False, True])
    def test_of_many_writers_at_once_one_wins(self, store: Store, exists: bool) -> None:
        """And what it wrote is what is there."""
        if exists:
            store.put(KEY, b"before")
        seen = store.version(KEY)
        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(lambda number: store.put_if(KEY, b"%d" % number, seen=seen), range(16)))
        assert [b"%d" % number for number, winner in enumerate(won) if winner] == [store.get(KEY)]

    def test_a_moved_blob_is_only_at_its_new_place(self, store: Store) -> None:
        """And moving it again does nothing."""
        store.put(KEY, b"photo")
        for _ in range(2):
            store.move(KEY, OTHER)
        assert (b"photo", [OTHER]) == (store.get(OTHER), list(store.list("")))

    def test_many_moves_are_made_to_last_together(self, store: Store) -> None:
        """Also where a folder is not there, or no longer."""
        store.put(KEY, b"photo")
        store.move(KEY, OTHER, durable=False)
        store.sync([KEY, OTHER, "never/made.jpg"])
        assert (b"photo", [OTHER]) == (store.get(OTHER), list(store.list("")))

    def test_a_move_that_was_cut_short_is_finished(self, store: Store) -> None:
        """Where copying and deleting are two steps, both places may have it."""
        store.put(KEY, b"photo")
        store.put(OTHER, b"photo")
        store.move(KEY, OTHER)
        assert (b"photo", [OTHER]) == (store.get(OTHER), list(store.list("")))

    def test_a_move_to_the_same_place_changes_nothing(self, store: Store) -> None:
        """The blob stays."""
        store.put(KEY, b"photo")
        store.move(KEY, KEY)
        assert b"photo" == store.get(KEY)

    @pytest.mark.parametrize("target", [KEY, OTHER])
    def test_moving_a_missing_blob_fails(self, store: Store, target: str) -> None:
        """The error has its key; a folder is not a blob either."""
        store.put("images/ab/cd/other.jpg", b"photo")
        for source in (KEY, "images/ab/cd"):
            with pytest.raises(BlobNotFound, match=source):
                store.move(source, target if source == KEY else OTHER)
        assert b"photo" == store.get("images/ab/cd/other.jpg")

    def test_many_move_the_same_blobs_at_once(self, store: Store) -> None:
        """A thread that comes second does nothing."""
        keys = [f"images/{number}.jpg" for number in range(20)]
        for key in keys:
            store.put(key, key.encode())
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda key: store.move(key, f"moved/{key}"), keys * 4))
        assert {f"moved/{key}": key.encode() for key in keys} == {key: store.get(key) for key in store.list("")}

    @pytest.mark.parametrize(
        "key",
        ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "a/.hidden", ".staging/x", "a\\b", "a b", "a\n", "a#1", "é",
         "a/..", "a" * 600, "a\0b", "C:/x"],
    )  # fmt: skip
    def test_a_key_that_is_no_plain_path_is_refused(self, store: Store, key: str) -> None:
        """By every verb that takes a key, before anything is touched."""
        verbs: list[Callable[[str], object]] = [
            store.get,
            store.exists,
            store.delete,
            lambda key: store.put(key, b"x"),
            lambda key: store.put_pieces(key, [b"x"]),
            lambda key: store.put_if(key, b"x", seen=None),
            lambda key: list(store.pieces(key)),
            store.version,
            lambda key: store.move(key, KEY),
            lambda key: store.move(KEY, key),
        ]
        for verb in verbs:
            with pytest.raises(RequestInvalid, match="is not a key"):
                verb(key)

    def test_many_threads_put_and_get_at_once(self, store: Store) -> None:
        """Also the same key: a reader gets a whole blob."""
        data = bytes(100_000)

        def work(number: int) -> bool:
            own = f"images/{number % 7}.jpg"
            store.put(own, data)
            return store.get(own) == data

        with ThreadPoolExecutor(8) as threads:
            assert {True} == set(threads.map(work, range(60)))
