"""Where registries and archives meet the store.

Receives a reference to pull or an archive to load, and a store; hands the store verified layers, the documents that
describe them and the names they shall have.  It must never know how images are shown or mounted.

The one way through: a *source* (`source`) offers images; `selection` finds the one for a platform; `image_ingest`
brings its layers into the store through `layer_ingest` and makes it visible; `pull` and `load` name it and say so
through a `progress.Reporter`.
"""
