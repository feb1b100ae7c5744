"""``manual``: the manual pages, imagefs(1) and mount.imagefs(8).

Commands, options and exit statuses come from where ``--help`` has them; here is only what no ``--help`` says: files,
the environment, examples.  Hands on roff; a reader is man(1)'s business.
"""

import argparse
import os
import time

from imagefs import __version__

_PAGES = ("imagefs", "mount.imagefs")

ENVIRONMENT = (
    ("IMAGEFS_STORE", "The store, unless --store is given."),
    ("XDG_DATA_HOME", "Where the store of an ordinary user is, in the folder imagefs; default: ~/.local/share."),
    ("DOCKER_DEFAULT_PLATFORM", "The platform whose image is taken where --platform does not say."),
    ("REGISTRY_AUTH_FILE", "Where credentials are looked for instead of the files below."),
    ("DOCKER_CONFIG", "The folder of docker's config.json; default: ~/.docker."),
    ("CONTAINERS_REGISTRIES_CONF", "The file to be read in place of registries.conf."),
    ("XDG_RUNTIME_DIR, XDG_CONFIG_HOME, HOME", "Where the files of a user are, as with podman."),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "Proxies on the way to registries."),
    ("TERM", "With the value dumb, no progress bars are drawn."),
    ("NO_COLOR", "Not empty: nothing is printed in colour."),
)
"""Every variable that counts, and what it does."""

_FILES = (
    (
        "/var/lib/imagefs",
        "The store of root; it is readable by root only, since layers hold files such as /etc/shadow.",
    ),
    ("~/.local/share/imagefs", "The store of anybody else."),
    ("/etc/fuse.conf", "Where user_allow_other lets ordinary users mount with -o allow_other."),
    (
        "/etc/containers/registries.conf, ~/.config/containers/registries.conf",
        "Mirrors, blocked and insecure registries.",
    ),
    ("/etc/docker/daemon.json", "The keys registry-mirrors and insecure-registries are read."),
    ("$XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json, ~/.docker/config.json", "Credentials."),
    ("/etc/containers/certs.d, /etc/docker/certs.d, ~/.config/containers/certs.d", "Certificates for registries."),
)

_EXAMPLES = (
    (
        "Pull an image, mount the store and look around:",
        """\
imagefs pull alpine:3.20
mkdir -p ~/images
imagefs mount ~/images
cat ~/images/alpine/3.20/etc/os-release
imagefs umount ~/images
""",
    ),
    (
        "Compare two tags, with and without a mount:",
        """\
diff -r --no-dereference ~/images/alpine/3.19 ~/images/alpine/3.20
imagefs diff --stat alpine:3.19 alpine:3.20
""",
    ),
    (
        "Take images from other tools, without a registry:",
        """\
docker save app:1 | imagefs load -
skopeo copy docker://alpine:3.20 oci:/tmp/alpine:3.20
imagefs load /tmp/alpine
""",
    ),
)

_FSTAB = """\
/var/lib/imagefs  /mnt/images  imagefs       ro,noauto,nofail,x-systemd.automount,allow_other  0 0
none              /mnt/images  fuse.imagefs  ro,store=/srv/imagefs                             0 0
alpine:3.20       /mnt/alpine  imagefs       ro,allow_other                                    0 0
"""


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this command to the command line."""
    command = commands.add_parser(
        "manual",
        help="print a manual page",
        description="Print a manual page as source for man(1), as in: imagefs manual | man -l -",
    )
    command.add_argument(
        "page",
        nargs="?",
        choices=_PAGES,
        default=_PAGES[0],
        metavar="PAGE",
        help=f"{' or '.join(_PAGES)}; default: %(default)s",
    )
    command.set_defaults(run=run)


def run(namespace: argparse.Namespace) -> int:
    """Print the page."""
    print(mount_helper_page() if namespace.page == "mount.imagefs" else imagefs_page(), end="")
    return 0


def _date() -> str:
    """Return today, or the day that whoever builds packages reproducibly wants.

    Source: reproducible-builds.org, SOURCE_DATE_EPOCH.
    """
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", "") or time.time())
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def imagefs_page() -> str:
    """Return imagefs(1)."""
    from imagefs.cli import roff
    from imagefs.cli.exit_codes import EXIT_CODES
    from imagefs.cli.main import parser

    top = parser()
    commands = roff.subcommands(top)
    page = roff.Page("imagefs", 1, _date(), f"imagefs {__version__}")
    page.name("imagefs", "container images as a file system")
    page.section("SYNOPSIS")
    page.synopsis(
        "imagefs", [*roff.calls(top), roff.italic("COMMAND"), "[" + roff.italic("ARGUMENT") + "\\~.\\|.\\|.]"]
    )
    page.section("DESCRIPTION")
    page.paragraph(top.description or "")
    page.paragraph(
        "A mount is read-only and shows each image as the union of its layers, with all metadata. Images that are"
        " pulled, tagged or removed while the store is mounted appear, move and vanish there. No daemon is needed, no"
        " root, and no container is started."
    )
    page.section("OPTIONS")
    for tag, meaning in roff.described(top):
        page.tagged(tag, meaning)
    page.section("COMMANDS")
    page.paragraph("All commands have the option --help.")
    for name, command in commands.items():
        page.subsection(f"imagefs {name}")
        page.synopsis(f"imagefs {name.partition(',')[0]}", roff.calls(command))
        page.paragraph(command.description or "")
        for tag, meaning in roff.described(command):
            page.tagged(tag, meaning)
        if command.epilog and command.formatter_class is argparse.RawDescriptionHelpFormatter:
            page.literal(command.epilog)
        elif command.epilog:
            page.paragraph(command.epilog)
    page.section("EXIT STATUS")
    for code, meaning in EXIT_CODES:
        page.tagged(roff.bold(str(code)), meaning)
    page.paragraph("imagefs diff has those of diff(1): 0 the same, 1 different, 2 trouble.")
    page.section("ENVIRONMENT")
    for variables, meaning in ENVIRONMENT:
        page.tagged(", ".join(map(roff.bold, variables.split(", "))), meaning)
    page.section("FILES")
    for path, meaning in _FILES:
        page.tagged(", ".join(map(roff.italic, path.split(", "))), meaning)
    page.section("EXAMPLES")
    for what, lines in _EXAMPLES:
        page.paragraph(what)
        page.literal(lines)
    page.section("SEE ALSO")
    page.paragraph(
        "mount.imagefs(8), diff(1), podman(1), skopeo(1), umoci(1), fusermount3(1), containers-registries.conf(5)"
    )
    return page.text()


def mount_helper_page() -> str:
    """Return mount.imagefs(8)."""
    from imagefs.cli import roff
    from imagefs.mount import helper, option_table

    page = roff.Page("mount.imagefs", 8, _date(), f"imagefs {__version__}")
    page.name("mount.imagefs", "mount container images with mount(8) and from fstab(5)")
    page.section("SYNOPSIS")
    spec = [roff.italic("SPEC"), roff.italic("DIR"), f"[{roff.bold('-sfnv')}]"]
    spec += [f"[{roff.bold(flag)}\\~{roff.italic(value)}]" for flag, value in (("-o", "OPTIONS"), ("-t", "TYPE"))]
    page.synopsis("mount.imagefs", spec)
    page.synopsis(
        "mount -t imagefs", [f"[{roff.bold('-o')}\\~{roff.italic('OPTIONS')}]", roff.italic("SPEC"), roff.italic("DIR")]
    )
    page.section("DESCRIPTION")
    page.paragraph(
        "mount.imagefs is what mount(8) runs for the types imagefs and fuse.imagefs. It mounts a store of container"
        " images, or one image of it, read-only, and returns when the mount answers. What SPEC means:"
    )
    page.tagged(", ".join(map(roff.bold, ("none", "imagefs"))), "the default store, or that of -o store=")
    page.tagged(roff.italic("an absolute path"), "the store at that path")
    page.tagged(
        roff.italic("anything else"),
        "an image of the store, to be shown alone. Where a file of that name is in the working directory, mount(8)"
        " makes a path of it; -o image= says beyond doubt that an image is meant",
    )
    page.section("OPTIONS")
    for flag, meaning in (
        ("-s", "ignore options that are not known"),
        ("-f", "check the command line, but do not mount"),
        ("-n, -v", "accepted and ignored"),
    ):
        page.tagged(", ".join(map(roff.bold, flag.split(", "))), meaning)
    page.tagged(f"{roff.bold('-t')}\\~{roff.italic('TYPE')}", "accepted and ignored")
    page.tagged(f"{roff.bold('-o')}\\~{roff.italic('OPTIONS')}", "a list with commas, of the mount options below")
    page.section("MOUNT OPTIONS")
    for words, meaning in option_table.MOUNT_OPTIONS:
        page.tagged(", ".join(map(roff.bold, words)), meaning)
    page.paragraph(
        "Options that are meant for mount(8) or systemd.mount(5), such as noauto and x-systemd.automount, are ignored."
    )
    page.section("EXIT STATUS")
    for status, meaning in helper.EXIT_STATUSES:
        page.tagged(roff.bold(str(status)), meaning)
    page.section("ENVIRONMENT")
    page.paragraph("mount(8) passes none of it on.")
    page.section("FILES")
    page.tagged(roff.italic("/sbin/mount.imagefs") + ", " + roff.italic("/sbin/mount.fuse.imagefs"), "this program")
    page.tagged(roff.italic("/var/lib/imagefs"), "the default store of root")
    page.section("EXAMPLES")
    page.paragraph("Lines of /etc/fstab: the default store, mounted when somebody looks; another store; one image:")
    page.literal(_FSTAB)
    page.section("SEE ALSO")
    page.paragraph("imagefs(1), mount(8), fstab(5), systemd.automount(5), fuse(4)")
    return page.text()
