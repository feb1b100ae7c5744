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
* `overlay` defines the union of changesets declaratively and computes a `Tree`.
* `view` answers what a kernel may ask of a mounted store, by inode; it knows no FUSE.
* `mount` puts a view under a mount point and keeps it there, with one of two drivers: `kernel` speaks the FUSE protocol
  on /dev/fuse itself (Linux, the default there), `fusepy` is the portable one.  One test suite runs on both.
* `cli` is a file per verb or family of verbs.

Nothing left of `mount` knows that FUSE exists; nothing right of `transfer` knows that there is a network.  Each
outside thing has one owning module: requests `registry.http`, zstandard and isal `layer.compression`, SQLite
`store.catalog`, rich `transfer.progress`, fusepy `mount.fusepy_driver`.  ``tests/test_architecture.py`` holds the table
of imports and fails when code disagrees.

Decisions worth knowing before changing anything:

* A layer is kept as its uncompressed tar, byte for byte: it can be verified at any time and read at any offset.  The
  compressed blob is not kept.  Beside it lies its index, made in the same pass.
* Names and paths inside images are bytes.  Values are frozen.  Parsing happens once, at the edge.
* A directory is known in the union by what its layers say of it, not by the order in which they say it.
* Everything durable is written, verified, fsynced and renamed before the catalog names it.
* A node id is computed from (slot, index): which image at which path, and which of its inodes.  It means the same
  content for ever, so the kernel may believe for ever what it is told inside an image; only names of images change.
* Errors are one tree (`errors`), which knows errno and exit status; one function turns them into each.

Docstrings are contracts in the style of PEP 257: a summary, what is not obvious of shapes, order, units, ownership and
threads, then labelled lines ``Raises:`` and ``Source:`` where they say something.
"""

__version__ = "0.1.0"
