"""The vocabulary of the image and distribution specifications as values: pure, immutable, and validated when made.

Receives text and bytes from anywhere, all of it hostile; hands on references, digests, platforms, descriptors,
manifests and configs that are what they claim to be in form.  Knows no file, no network and no store.
"""
