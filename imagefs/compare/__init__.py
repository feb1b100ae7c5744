"""What makes two images differ, and which layer made a file what it is.

Receives a store and its images; hands on `Change` and `Touch` values, in the order of ``diff -r``.  Works on trees and
indexes alone: no content is read but by `unified`.  Knows neither command lines nor mounts.
"""
