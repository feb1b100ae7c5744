"""Registries: the distribution protocol, as far as pulling needs it.

Receives registry and repository names, descriptors and credentials others wrote down; hands on manifests and blobs
that are verified against their digests.  Everything a registry says is mistrusted: sizes, digests, where it sends us
next and what it asks for.  It must never know of stores, layers or terminals.
"""
