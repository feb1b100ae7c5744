"""The local, content-addressed store: layers as raw tars, documents verbatim, a catalog of images and tags.

Receives verified content from `transfer`; hands it on, read-only, to whoever shows images.  It must never know where
content came from (network, archive) nor what is inside a layer: to the store a layer's tar and index are bytes.
"""
