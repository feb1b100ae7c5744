"""Views of a store, mounted.

Receives what the view answers; hands on a mount that the kernel, and so everybody, can look into.  It must never
know what an image is made of: a driver asks the view and translates.
"""
