"""What the mount options mean, in words: for ``imagefs mount --help``, the manual and completion.

Hands on texts alone and imports nothing, so that who only prints them need not wait for who understands them, which is
`imagefs.mount.options`; a test holds the two together.
"""

MOUNT_OPTIONS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("ro",), "no more than is true anyway: a mount is read-only"),
    (("allow_other",), "let other users in too, as far as permissions allow"),
    (("default_permissions",), "let modes and owners in images count for you, too"),
    (("uid=", "gid="), "show everything as belonging to this user, this group"),
    (("umask=",), "take these permissions away, in octal"),
    (("symlinks=",), '"rewrite" to keep targets inside the image, or "keep" to show them as they are'),
    (("nonempty",), "mount over a folder that holds files"),
    (("exec", "noexec"), "run programs from the mount, or do not"),
    (("suid", "dev"), "respect set-user-ID programs, device files (root only; think twice)"),
    (("nosuid", "nodev"), "do not, which is the default"),
    (("store=", "image="), "the store, and an image to be shown alone"),
    (("trust-store",), "show a store of another user, or one that others could have changed"),
    (("verify=",), '"open" to compare each file with its digest before it is shown, or "never"'),
    (("log_file=",), "where to log; default: syslog"),
    (("driver=",), '"kernel" (Linux) or "fusepy"'),
)
"""Options that are written alike, a value announced by "=", and what they do."""
