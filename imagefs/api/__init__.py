"""The Python API: images as objects and their files as paths, without a mount.  Public names are those of `imagefs`."""
