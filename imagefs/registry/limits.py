"""How long and how much the registry client waits for and reads before it calls a server broken."""

CONNECT_TIMEOUT_S = 20.0
"""Longest wait for a connection, over all addresses of a host; for a name server and a TLS handshake, each."""

READ_TIMEOUT_S = 60.0
"""Longest silence; registries that fetch from elsewhere first take their time."""

HEAD_TIMEOUT_S = 20.0
"""Longest time from the first byte of an answer to the end of its head, with all informational answers before it.  A
head is a few packets, sent at once; longer takes only a server that never ends it."""

STALL_WINDOW_S = 30.0
STALL_BYTES = 32 * 1024
"""Less content than this in a window of waiting is a stall: 1 KiB/s, which three layers at once get over a modem of
28.8 kbit/s.  It also bounds chunk sizes and trailers, which bring no content."""

STALL_READS = 4096
"""A window also ends after so many reads: a fast server that sends a chunk for each byte is never waited for.  Packets
bring hundreds of bytes a read, `STALL_BYTES` in so many reads are eight."""

MAX_FRAMING_BYTES = 1024 * 1024
"""Most bytes of a head, and of chunk sizes and trailers between two pieces of content.  Servers limit
their own heads to some ten kilobytes."""
