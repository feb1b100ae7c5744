"""imagefs: container images as a file system.

The architecture on one page.  Data flows one way::

    registry ──▶ transfer ──▶ store ──▶ layer ──▶ overlay ──▶ view ──▶ mount ──▶ kernel
      HTTP      pull/load     CAS      tar scan    union    what the kernel    FUSE
     Descriptor  raw tar    by digest  Changeset    Tree    may ask, answered

* `oci` values without I/O: Reference, Digest, Descriptor, Manifest, ImageIndex, ImageConfig, Platform.
* `registry` speaks the distribution protocol; what leaves it is verified.
* `layer` turns compressed bytes into a tar and a tar into a `Changeset`: entries, whiteouts, opaque directories.
* `transfer` is where network, archives and the store meet: each layer is downloaded, verified, decompressed, verified
  again, scanned and written in one pass and in bounded memory.
* `store` keeps layers as raw tars named by diff_id, documents verbatim, and a catalog of images and tags.
* `overlay` defines the union of changesets declaratively, computes it as a `Tree`, and keeps that as a file that is
  served by copying bytes.
* `view` answers what a kernel may ask of a mounted store, by inode; it knows no FUSE.
* `compare` says what makes two images differ and which layer made a file what it is, from trees and indexes alone.
* `check` compares what a store holds with what its names promise, and mends what can be made from what is there.
* `mount` puts a view under a mount point and keeps it there, with one of two drivers: `kernel` speaks the FUSE protocol
  on /dev/fuse itself (Linux, the default there), `fusepy` is the portable one.  One test suite runs on both.  For the
  kernel driver a `holder` keeps the mount, and one child of it after the other serves it.
* `cli` is a file per verb or family of verbs.
* `text` makes text for people: whatever an image or registry says is escaped where it is not printable.  `cli.streams`
  applies it to everything a command prints; only data, such as contents of files, is written as it is.
* `api` is the same for Python programs, and a file system for fsspec; what it offers is offered by this module::

      with imagefs.open_store() as store:
          print(store["alpine:3.20"].path("etc/os-release").read_text())

Nothing left of `mount` knows that FUSE exists; nothing right of `transfer` knows that there is a network.  Each
outside thing has one owning module: requests `registry.http`, zstandard and isal `layer.compression`, SQLite
`store.database`, rich `transfer.progress`, argcomplete `cli.completion`, fusepy `mount.fusepy_driver`, fsspec
`api.fsspec`.  ``tests/test_architecture.py`` holds the table of imports and fails when code disagrees.

Decisions worth knowing before changing anything:

* A layer is kept as its uncompressed tar, byte for byte: it can be verified at any time and read at any offset.  The
  compressed blob is not kept.  Beside it lies its index, made in the same pass.
* What came of a layer whose download did not end is kept, compressed, until the layer is there (`store.partial`); a
  lock on it makes whoever else wants that layer wait for it instead of downloading it twice.
* Python's one lock is left free while a layer arrives: hashing, inflating and writing are threads, and the scan of a
  big layer, which is Python, is a process (`layer.scan_process`).
* A store is private or shared with one group, and judged once, on opening it (`store.access`): nobody but its owner can
  then exchange a name in it.  Files outside of it are made and changed relative to open folders (`store.trusted_path`).
* Names and paths inside images are bytes.  Values are frozen.  Parsing happens once, at the edge.
* A directory is known in the union by what its layers say of it, not by the order in which they say it.
* Everything durable is written, verified, fsynced and renamed before the catalog names it.
* The union is computed once, at pull.  Its file holds directories as the kernel wants them answered, in pages; opening
  an image is one read, and nothing that is kept in memory grows with the number of images or entries.
* A node id is computed from (slot, index): which layer and which of its entries, or, for directories and what a union
  made different, which image at which path and which inode of its tree.  It means the same content for ever, so the
  kernel may believe for ever what it is told inside an image; only names of images change.  Files of a shared layer
  are one node, with one page cache, in all images.
* An inode number is 64 bits of a digest of what the thing is, keyed with a secret of the store: equal things of one
  store have equal numbers, and makers of images cannot compute numbers in order to make them collide.  `compare` uses
  whole, unkeyed digests; the tree stores one per directory, covering its whole subtree.
* Indexes and trees name the layers, and trees the key, that they were made with.  Any other is made again, and a
  layer's tar is compared with its diff_id before anything is made from it.
* The thread that answers never waits (`view.waiting`): what takes longer than a disk access is done by other threads,
  trees are computed by other processes, and the requests that need them are parked and stay interruptible.  Names in a
  directory and runs of a sparse file are found by bisection.
* Descriptors are bounded by what a process may have: files of the store are closed and opened again (`view.kept`).
* Whoever serves may die at any moment.  What its successor must know is with the holder before the kernel hears of it:
  slots given, files kept open.  What can be asked of the kernel instead is not remembered at all.
* Processes that parse images give up all privileges first and reach only the store (`confinement`).  The holder of a
  mount keeps its privileges and parses only what its children tell it.
* Errors are one tree (`errors`), which knows errno and exit status; one function turns them into each.

Docstrings are contracts in the style of PEP 257: a summary, what is not obvious of shapes, order, units, ownership and
threads, then labelled lines ``Raises:`` and ``Source:`` where they say something.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagefs.api.comparing import Change, diff
    from imagefs.api.image import Image, Layer
    from imagefs.api.path import ImagePath
    from imagefs.api.store import ImageStore, open_store

__version__ = "0.3.0"
__all__ = ["Change", "Image", "ImagePath", "ImageStore", "Layer", "diff", "open_store"]

_MODULES = {
    "Change": "comparing",
    "Image": "image",
    "ImagePath": "path",
    "ImageStore": "store",
    "Layer": "image",
    "diff": "comparing",
    "open_store": "store",
}


def __getattr__(name: str) -> object:
    """Import what is asked for only then: starting the command line must not wait for it."""
    if name not in _MODULES:
        raise AttributeError(f"module 'imagefs' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"imagefs.api.{_MODULES[name]}"), name)
