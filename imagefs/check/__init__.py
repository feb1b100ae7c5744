"""Is everything in a store what it should be, and mending what is not.

Receives a store; hands on `Finding` values.  The one stage that compares what is derived (indexes, trees) with what it
is derived from.  Knows neither registries nor command lines: what must come from outside again is asked for.
"""
