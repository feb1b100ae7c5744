"""The union of stacked layers.

Receives changesets, base first; hands on one immutable `Tree`.  It must never know where layers come from, how they
are stored, or who looks at the result.
"""
