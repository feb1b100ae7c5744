"""The store as a collection of images: look them up, go through them, bring new ones in.

Receives where the store is, and references as people write them; hands on `Image` values.  What is imported to pull is
imported when something is pulled.
"""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TextIO

from imagefs.api.image import Image
from imagefs.api.opened import OpenedStore
from imagefs.errors import ImageNotFound, InvalidReference, UsageError
from imagefs.overlay.stored import Stack, store_tree
from imagefs.store import catalog
from imagefs.store.location import default_store_path
from imagefs.store.store import Store
from imagefs.view.tree import named

if TYPE_CHECKING:
    from imagefs.oci.platform import Platform
    from imagefs.transfer.progress import Reporter

_log = logging.getLogger("imagefs")


def open_store(
    path: str | os.PathLike[str] | None = None, *, create: bool = False, verify: bool = True, trust: bool = False
) -> "ImageStore":
    """Open the store at *path*, which by default is that of the command line; with *create* make it if need be.

    The default is $IMAGEFS_STORE, /var/lib/imagefs for root and $XDG_DATA_HOME/imagefs for everybody else.  With
    *verify*, files are compared with their digests before anything of them is read, each once.  *trust* also reads a
    store of another user, or one that other users could have changed.  The caller closes the store, best with ``with``.

    Raises: StoreUnusable, also where there is no store and it shall not be made.
    """
    store = Store.open(Path(path) if path is not None else default_store_path(), create=create, trust=trust)
    return ImageStore(OpenedStore(store, verify=verify))


class ImageStore:
    """The images of a store.  Thread-safe, and other processes may change the store; not to be used in a forked child.

    Iterating gives all images, newest first.
    """

    def __init__(self, opened: OpenedStore) -> None:
        self._opened = opened

    @property
    def path(self) -> Path:
        """The folder that the store is in."""
        return self._opened.store().path

    def close(self) -> None:
        """Close the store.  Its images cannot be looked at any more; files opened before stay readable."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- looking up ----

    def __getitem__(self, reference: str) -> Image:
        """Return the image that *reference* names: a name, an ID or its beginning, each perhaps with ``@layer:N``.

        Raises: ImageNotFound, which is a KeyError; InvalidReference, which is a ValueError.
        """
        found, stack = named(self._opened.store(), reference)
        return Image(self._opened, found, stack, reference)

    def __contains__(self, reference: object) -> bool:
        if not isinstance(reference, str):
            return False
        try:
            self[reference]
        except (ImageNotFound, InvalidReference):
            return False
        return True

    def __iter__(self) -> Iterator[Image]:
        return iter([self._image(found) for found in self._opened.store().images()])

    def __len__(self) -> int:
        return len(self._opened.store().images())

    def generation(self) -> int:
        """Return a number that differs once anybody else has changed which images there are or their names."""
        return self._opened.store().generation()

    def _image(self, found: catalog.Image) -> Image:
        names = [tag.familiar_tag for tag in found.tags]
        return Image(self._opened, found, Stack(found.diff_ids), names[0] if names else str(found.id))

    # ---- bringing in ----

    def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        policy: Literal["always", "missing"] = "always",
        tls_verify: bool | None = None,
        authfile: str | os.PathLike[str] | None = None,
        progress: TextIO | None = None,
        allow_expansion: bool = False,
    ) -> Image:
        """Bring the image *reference* from its registry into the store, and return it.

        Layers that are there already are not fetched again.  *platform* is by default this machine's.  With *policy*
        ``missing`` the registry is asked only where the store has no such image.  *tls_verify* False also accepts
        registries with bad certificates or plain HTTP, None only on this machine.  *authfile* holds credentials, by
        default where docker and podman have them.  On *progress*, such as ``sys.stderr``, is written what ``imagefs
        pull`` writes; without it, warnings go to the logger ``imagefs``.  A layer that expands to many times its
        compressed size is refused unless *allow_expansion*.

        Raises: InvalidReference, InvalidPlatform, RegistryError, ContentError, StoreError, OSError.
        """
        from imagefs.oci.reference import Reference
        from imagefs.transfer.pull import in_store, pull, settled

        if policy not in ("always", "missing"):
            raise UsageError(f"expected always or missing as policy, found {policy!r}")
        store = self._opened.store()
        wanted, chosen, reporter = Reference.parse(reference), _platform(platform), _reporter(progress)
        if settled(store, wanted, policy=policy, platform=chosen, reporter=reporter):
            found = in_store(store, wanted.with_default_tag(), chosen)
            if found is not None:
                return Image(self._opened, found, Stack(found.diff_ids), reference)
        from imagefs.registry.mirrors import open_endpoints

        client = open_endpoints(
            wanted, tls_verify=tls_verify, authfile=Path(authfile) if authfile is not None else None
        )
        with contextlib.closing(client):
            found = pull(
                store,
                wanted,
                client=client,
                platform=chosen,
                check=partial(store_tree, store),
                reporter=reporter,
                allow_expansion=allow_expansion,
            )
        return Image(self._opened, found, Stack(found.diff_ids), reference)

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        platform: str | None = None,
        progress: TextIO | None = None,
        allow_expansion: bool = False,
    ) -> tuple[Image, ...]:
        """Bring all images of an archive or layout at *path* into the store, and return them in its order.

        It is a docker save archive, an OCI layout or a ``dir:`` folder of skopeo, perhaps compressed.  *name* is what
        the image shall be called, by default what the archive says.  Else as `pull`.

        Raises: UsageError, ContentError, NoMatchingPlatform, StoreError, OSError.
        """
        from imagefs.oci.reference import Reference
        from imagefs.transfer.archive_input import open_archive
        from imagefs.transfer.load import load
        from imagefs.transfer.names import repository_from

        store = self._opened.store()
        wanted = Reference.parse(name) if name is not None else None
        if wanted is not None and wanted.digest is not None:
            raise UsageError("name takes a repository and perhaps a tag; a digest cannot be chosen")
        # Made absolute, as "-" alone would mean standard input.
        where = Path(path).absolute()
        with open_archive(str(where), spool_folder=store.path / "ingest", allow_expansion=allow_expansion) as source:
            found = load(
                store,
                source,
                repository=repository_from(where.resolve().name),
                wanted=wanted,
                platform=_platform(platform),
                check=partial(store_tree, store),
                reporter=_reporter(progress),
                allow_expansion=allow_expansion,
            )
        return tuple(self._image(image) for image in found)


def _platform(text: str | None) -> "Platform | None":
    from imagefs.oci.platform import Platform

    return Platform.parse(text, default=Platform.host()) if text is not None else None


def _reporter(progress: TextIO | None) -> "Reporter":
    from imagefs.transfer.progress import Reporter

    class LoggingReporter(Reporter):
        """Says nothing, except warnings to the log."""

        def result(self, text: str) -> None:
            _log.info("%s", text)

        def warn(self, text: str) -> None:
            _log.warning("%s", text)

    if progress is None:
        return LoggingReporter(sys.stdout, sys.stderr, quiet=True)
    return Reporter(progress, progress)
