"""Everything that can go wrong, as one small tree.

Four questions give four branches: did you ask wrongly (usage), did the other side refuse (RegistryError), do the
bytes lie (ContentError), is something wrong here (StoreError, MountError)?  Every error carries what was expected and
what was found as attributes; `__str__` composes one sentence, without a trailing period and without secrets.

Of other modules this one knows only `text`.  `errno_of` is the one place that turns an exception into an errno for the
kernel, `describe` the one place that turns it into text for a person.
"""

import errno
import os

from imagefs.text import printable as printable  # noqa: PLC0414  # also by this name, as of old

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class ImagefsError(Exception):
    """Base of every error that imagefs raises on purpose.  Abstract: raise a leaf."""

    errno: int = errno.EIO
    exit_code: int = EXIT_FAILURE
    temporary: bool = False
    """Whether the same request may succeed when repeated; the retry loop asks this and keeps no table of its own."""


class PathUnsafe(ImagefsError, OSError):
    """Another user can lead *path* elsewhere, or has just done so: *reason*."""

    errno = errno.EPERM

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"refusing to use {printable(self.path)}: {self.reason}"


# ---- did you ask wrongly? ----


class UsageError(ImagefsError):
    """The command line asks for something that cannot be meant."""

    errno = errno.EINVAL
    exit_code = EXIT_USAGE


class Malformed(UsageError, ValueError):
    """*text*, as written by somebody, cannot be understood, because of *reason*.  Abstract: raise a leaf."""

    kind: str

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(text, reason)
        self.text, self.reason = text, reason

    def __str__(self) -> str:
        return f"invalid {self.kind} '{printable(self.text)}': {self.reason}"


class ConfigurationInvalid(UsageError):
    """The configuration file *path* says something that cannot be understood, because of *reason*."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{printable(self.path)}: {printable(self.reason)}"


class InvalidTemplate(Malformed):
    """No ``--format``."""

    kind = "format"


class InvalidFilter(Malformed):
    """No ``--filter``."""

    kind = "filter"


class InvalidReference(Malformed):
    """No image reference.  Worded as docker words it."""

    def __str__(self) -> str:
        return f"invalid reference format: {self.reason} (in '{printable(self.text)}')"


class InvalidDigest(Malformed):
    """No digest."""

    kind = "digest"


class InvalidPlatform(Malformed):
    """No platform specifier."""

    kind = "platform"


class InvalidMountOption(Malformed):
    """No mount option, or one with a value it cannot have."""

    kind = "mount option"


# ---- did they answer wrongly? ----


class RegistryError(ImagefsError):
    """A registry refused or failed.

    *url* must be redacted by the caller (no query, no user).  *status* is the HTTP status or 0 where no answer came;
    *codes* are the distribution protocol's error codes (``DENIED``, ...) found in the body.
    """

    exit_code = 3

    def __init__(self, message: str, *, status: int = 0, codes: tuple[str, ...] = (), url: str = "") -> None:
        super().__init__(message)
        self.message, self.status, self.codes, self.url = message, status, codes, url

    def __str__(self) -> str:
        return self.message


class RegistryUnavailable(RegistryError):
    """No answer, 429, 5xx: worth another try, after *retry_after_s* seconds where the registry said so."""

    temporary = True

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        codes: tuple[str, ...] = (),
        url: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=status, codes=codes, url=url)
        self.retry_after_s = retry_after_s


class Unauthorized(RegistryError):
    """The registry wants credentials, or refuses the ones it got."""

    errno = errno.EACCES
    exit_code = 4


class ManifestUnknown(RegistryError):
    """The registry has no such repository, tag, manifest or blob."""

    errno = errno.ENOENT
    exit_code = 5


class NoMatchingPlatform(RegistryError):
    """An index offers no image for the wanted platform; *offered* lists, as text, what there is."""

    errno = errno.ENOENT
    exit_code = 5

    def __init__(self, reference: str, wanted: str, offered: tuple[str, ...]) -> None:
        super().__init__(f"no matching manifest for {wanted} in {reference}")
        self.wanted, self.offered = wanted, offered

    def __str__(self) -> str:
        there = ", ".join(printable(platform) for platform in self.offered) or "no platform at all"
        return f"{self.message}; it has: {there}"


# ---- do the bytes lie? ----


class ContentError(ImagefsError):
    """Bytes are not what they claim to be."""

    exit_code = 6


class DigestMismatch(ContentError):
    """*what* (a word such as "layer") should have digest *expected* and has *actual*."""

    def __init__(self, what: str, expected: str, actual: str) -> None:
        super().__init__(what, expected, actual)
        self.what, self.expected, self.actual = what, expected, actual

    def __str__(self) -> str:
        return f"{self.what} verification failed: expected {self.expected}, the content has {self.actual}"


class SizeMismatch(ContentError):
    """*what* should have *expected* bytes; *actual* were seen (or more: reading stops at the first byte too many)."""

    def __init__(self, what: str, expected: int, actual: int) -> None:
        super().__init__(what, expected, actual)
        self.what, self.expected, self.actual = what, expected, actual

    def __str__(self) -> str:
        more = "more than that" if self.actual > self.expected else f"only {self.actual}"
        return f"{self.what} has the wrong size: expected {self.expected} bytes, got {more}"


class InvalidManifest(ContentError):
    """*what* (a manifest, index, config or other JSON document) breaks the rules for such documents."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return f"invalid {printable(self.what)}: {self.reason}"


class UnsupportedMediaType(ContentError):
    """*media_type* is well-formed and known to be something else than an image imagefs can show."""

    def __init__(self, media_type: str, reason: str) -> None:
        super().__init__(media_type, reason)
        self.media_type, self.reason = media_type, reason

    def __str__(self) -> str:
        return f"unsupported media type {printable(self.media_type)}: {self.reason}"


class InvalidLayer(ContentError):
    """A layer is no valid (compressed) tar or no valid changeset.

    *entry* is the path inside the layer as written, where one is known; *offset* the position in the uncompressed tar;
    *layer* names the layer where the raiser knows it.
    """

    def __init__(self, reason: str, *, entry: bytes | None = None, offset: int | None = None, layer: str = "") -> None:
        super().__init__(reason)
        self.reason, self.entry, self.offset, self.layer = reason, entry, offset, layer

    def __str__(self) -> str:
        parts = [f"invalid layer {self.layer}".rstrip() + f": {self.reason}"]
        if self.entry is not None:
            parts.append(f"at entry '{printable(self.entry)}'")
        if self.offset is not None:
            parts.append(f"(tar offset {self.offset})")
        return " ".join(parts)


class InvalidArchive(ContentError):
    """*path* is no image archive or layout, because of *reason*."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"cannot load '{printable(self.path)}': {self.reason}"


# ---- is something wrong here? ----


class StoreError(ImagefsError):
    """Local state is missing, damaged, or in the way."""

    exit_code = 7


class StoreUnusable(StoreError):
    """The folder *path* is no store that can be used, because of *reason*; *remedy* is what to do, if that is known."""

    def __init__(self, path: str, reason: str, remedy: str = "") -> None:
        super().__init__(path, reason)
        self.path, self.reason, self.remedy = path, reason, remedy

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"cannot use the store at {printable(self.path)}: {self.reason}{remedy}"


class DiskFull(StoreError, OSError):
    """The disk of *path* has *free_bytes*, of which *reserve_bytes* stay free; *needed_bytes* are still to come."""

    errno = errno.ENOSPC
    exit_code = EXIT_FAILURE  # as where the operating system says so

    def __init__(self, path: str, *, needed_bytes: int, free_bytes: int, reserve_bytes: int) -> None:
        super().__init__(path, needed_bytes, free_bytes, reserve_bytes)
        self.path = path
        self.needed_bytes, self.free_bytes, self.reserve_bytes = needed_bytes, free_bytes, reserve_bytes

    def __str__(self) -> str:
        return (
            f"No space left on device: {printable(self.path)}: {self.free_bytes} bytes are free,"
            f" {self.needed_bytes} more must be written and {self.reserve_bytes} stay free for other programs;"
            " remove images with imagefs rm and run imagefs prune, or use another --store"
        )


class StoreFull(StoreUnusable):
    """The disk of the store at *path* has no space for a change."""

    errno = errno.ENOSPC


class CatalogDamaged(StoreUnusable):
    """The catalog of the store at *path* is damaged or missing; `imagefs verify --repair` makes it again."""


class BlobNotFound(StoreError):
    """Content that the catalog promises is not on disk."""

    def __init__(self, what: str, digest: str) -> None:
        super().__init__(what, digest)
        self.what, self.digest = what, digest

    def __str__(self) -> str:
        return f"{self.what} {self.digest} is missing from the store; pull the image again"


class LayerDamaged(StoreError):
    """The stored tar of layer *diff_id* is not what was stored, because of *reason*."""

    def __init__(self, diff_id: str, reason: str) -> None:
        super().__init__(diff_id, reason)
        self.diff_id, self.reason = diff_id, reason

    def __str__(self) -> str:
        return f"layer {self.diff_id} is damaged: {self.reason}; mend it with imagefs verify --repair"


class FileDamaged(LayerDamaged):
    """The content of the file *path* in the tar of layer *diff_id* is not what was stored."""

    def __init__(self, diff_id: str, path: bytes) -> None:
        super().__init__(diff_id, f"the content of /{printable(path)} is not what was stored")
        self.path = path


class DerivedDamaged(StoreError):
    """What was derived from layers cannot be read, because of *reason*.  Abstract: raise a leaf.

    It *is_outdated* where another version of imagefs, or another store, made it.
    """

    kind: str

    def __init__(self, reason: str, *, is_outdated: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.is_outdated = reason, is_outdated

    def __str__(self) -> str:
        state = "outdated" if self.is_outdated else "damaged"
        return f"{state} {self.kind}: {self.reason}; it is made again from the layers when next needed"


class LayerIndexDamaged(DerivedDamaged):
    """A stored layer index."""

    kind = "layer index"


class TreeDamaged(DerivedDamaged):
    """A stored tree."""

    kind = "tree"


class ImageNotFound(StoreError, KeyError):
    """No image in the store answers to *reference*."""

    errno = errno.ENOENT

    def __init__(self, reference: str, hint: str = "") -> None:
        super().__init__(reference, hint)
        self.reference, self.hint = reference, hint

    def __str__(self) -> str:
        return f"no such image: {printable(self.reference)}" + (f"; {self.hint}" if self.hint else "")


class PathNotFound(StoreError, FileNotFoundError):
    """The image *reference* has nothing at *path*."""

    errno = errno.ENOENT

    def __init__(self, path: bytes, reference: str, hint: str = "") -> None:
        super().__init__(path, reference, hint)
        self.path, self.reference, self.hint = path, reference, hint
        self.strerror, self.filename = os.strerror(self.errno), "/" + os.fsdecode(path)
        self.args = (path, reference, hint)  # OSError takes some away

    def __str__(self) -> str:
        text = f"no such file or directory in {printable(self.reference)}: /{printable(self.path)}"
        return text + (f"; {self.hint}" if self.hint else "")


class ImageInUse(StoreError):
    """*reference* cannot be removed without force, because of *reason*."""

    errno = errno.EBUSY

    def __init__(self, reference: str, reason: str) -> None:
        super().__init__(reference, reason)
        self.reference, self.reason = reference, reason

    def __str__(self) -> str:
        return f"image {printable(self.reference)} {self.reason}"


class MountError(ImagefsError):
    """Mounting or unmounting failed; the message says why and what to do next."""

    exit_code = 8


# ---- the two translations ----


def errno_of(error: BaseException) -> int:
    """Return the errno the kernel should see for *error*; EIO for whatever is not foreseen."""
    if isinstance(error, ImagefsError):
        return error.errno
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return errno.EIO


def describe(error: BaseException) -> str:
    """Return one sentence, without a trailing period, that tells a person what *error* means."""
    if isinstance(error, ImagefsError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError) and error.errno:
        what = os.strerror(error.errno)
        where = f": {printable(os.fsdecode(error.filename))}" if isinstance(error.filename, str | bytes) else ""
        return f"{what}{where}"
    return f"{type(error).__name__}: {printable(str(error))}"
