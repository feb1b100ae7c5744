"""Layers: from compressed bytes to a changeset, and the changeset's form on disk.

Receives a layer's bytes, all of them hostile; hands on the uncompressed tar and its `Changeset`.  It must never know
which image a layer belongs to, what lies below it, or (except `indexed`) that there is a store.
"""
