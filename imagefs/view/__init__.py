"""What the kernel may ask of a mounted store, answered.

Receives a store; hands on inodes, attributes, names and bytes.  It must never know FUSE, nor any other way to be
mounted; drivers are thin adapters over `filesystem.Filesystem`.
"""
