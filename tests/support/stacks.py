"""Generated stacks of layers over few names, so that paths meet."""

import random

from tests.support.layers import Member, dir_, file, layer, link, opaque, symlink, whiteout

FOLDERS = ["x", "x/y", "z"]
NAMES = ["a", "b", "c", "y"]
TARGETS = ["a", "b/c", "/a", "../b", "/c/../d", ".", "../../..", "nowhere/x"]


def generated(chance: random.Random) -> list[bytes]:
    """Return two or three layers over few names, so that paths meet."""
    layers = []
    files = ["x/a"]
    for number in range(chance.choice([2, 3])):
        members: list[Member] = [] if number else [dir_(path, mtime_ns=10**18) for path in FOLDERS]
        for position in range(chance.randrange(2, 9)):
            path = "/".join([*chance.choices(FOLDERS, k=chance.choice([0, 1, 1])), chance.choice(NAMES)])
            mtime_ns = (1_500_000_000 + 100 * number + position) * 10**9
            mode = chance.choice([0o600, 0o644, 0o755])
            match chance.choice("dddfffffslhwo"):
                case "d":
                    members.append(dir_(path, mode=mode | 0o700, mtime_ns=mtime_ns))
                case "s" | "l":
                    members.append(symlink(path, chance.choice(TARGETS), mtime_ns=mtime_ns))
                case "h":
                    members.append(link(path, chance.choice(files)))
                case "w" if number:
                    members.append(whiteout(path))
                case "o" if number:
                    members.append(opaque(path))
                case _:
                    files.append(path)
                    members.append(file(path, b"%d %d" % (number, position), mode=mode, mtime_ns=mtime_ns))
        # umoci, reading in order, takes what a hard link names for gone once its whiteout has been; and a whiteout of a
        # directory that got a child before keeps the directory.  Markers first is where all agree.
        layers.append(layer(*sorted(members, key=lambda member: b".wh." not in member.name)))
    return layers
