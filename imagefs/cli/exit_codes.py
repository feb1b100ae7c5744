"""What the exit status of every command means."""

EXIT_CODES: tuple[tuple[int, str], ...] = (
    (0, "success"),
    (1, "an unforeseen failure, or the operating system refused"),
    (2, "wrong usage: an option, reference, digest or platform that cannot be understood"),
    (3, "the registry failed or could not be reached"),
    (4, "the registry wants (other) credentials"),
    (5, "the registry or archive has no such image, or not for this platform"),
    (6, "bytes are not what they claim: digest, size, manifest, layer or archive"),
    (7, "the local store: no such image, in use, damaged, or of another format"),
    (8, "mounting or unmounting failed"),
    (130, "interrupted"),
)
"""Printed at the end of ``imagefs --help``."""
