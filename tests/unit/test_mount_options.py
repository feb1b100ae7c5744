"""The comma list behind -o: what mount(8), systemd and people write, and what it comes to."""

from pathlib import Path

import pytest

from imagefs.errors import InvalidMountOption
from imagefs.mount.options import MountOptions, parse_options, split_options
from imagefs.view.presentation import Presentation


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", []),
        ("ro", ["ro"]),
        ("ro,,nodev,", ["ro", "nodev"]),
        ('store="/a,b",ro', ["store=/a,b", "ro"]),
        ('a="x y",b="",c', ["a=x y", "b=", "c"]),
        ("store=/a b", ["store=/a b"]),
        ("store=/a=b", ["store=/a=b"]),
    ],
)
def test_commas_between_quotes_do_not_separate(text: str, options: list[str]) -> None:
    assert split_options(text) == options


def test_an_open_quote_is_refused() -> None:
    with pytest.raises(InvalidMountOption, match="not closed"):
        split_options('a="b,c')


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], MountOptions()),
        (["rw"], MountOptions(read_write=True)),
        (["rw", "ro"], MountOptions(read_write=False)),
        (["rw,remount"], MountOptions(read_write=True, remount=True)),
        (["allow_other,nonempty,noexec"], MountOptions(allow_other=True, nonempty=True, noexec=True)),
        (["suid,dev,nosuid"], MountOptions(suid=False, dev=True)),
        (["noexec", "exec"], MountOptions()),
        (["uid=1,gid=2,umask=022"], MountOptions(presentation=Presentation(1, 2, 0o022))),
        (["uid=1", "uid=root"], MountOptions(presentation=Presentation(uid=0))),
        (["uid=4000000000"], MountOptions(presentation=Presentation(uid=4_000_000_000))),
        (["store=/a,image=b:c"], MountOptions(store=Path("/a"), image="b:c")),
        (["symlinks=rewrite"], MountOptions(presentation=Presentation(rewrites_symlinks=True))),
        (["symlinks=rewrite,symlinks=keep"], MountOptions()),
        (["verify=open"], MountOptions(verify=True)),
        (["verify=open,verify=never"], MountOptions()),
        (["trust-store,default_permissions"], MountOptions(trust_store=True, default_permissions=True)),
        (["umask=777"], MountOptions(presentation=Presentation(umask=0o777))),
        (["store=a"], MountOptions(store=Path.cwd() / "a")),
        (["log_file=/l,driver=fusepy"], MountOptions(log_file=Path("/l"), driver="fusepy")),
    ],
)
def test_options_mean_what_they_say_and_later_ones_win(texts: list[str], expected: MountOptions) -> None:
    assert parse_options(texts) == expected


@pytest.mark.parametrize(
    "option",
    [
        "_netdev",
        "nofail",
        "user",
        "users",
        "nouser",
        "user=joe",
        "owner",
        "group",
        "auto",
        "noauto",
        "defaults",
        "atime",
        "noatime",
        "diratime",
        "relatime",
        "async",
        "sync",
        "mand",
        "loud",
        "silent",
        "x-systemd.automount",
        "x-gvfs-show",
        "x-systemd.requires=/a",
        "X-mount.mkdir=0755",
        "comment=x",
        "context=system_u:object_r:x",
    ],
)
def test_what_others_read_is_no_error_and_changes_nothing(option: str) -> None:
    assert parse_options([option]) == MountOptions()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alow_other", "did you mean 'allow_other'"),
        ("zzzzzzz", "option 'zzzzzzz': unknown$"),
        ("store", "store=VALUE"),
        ("store=", "store=VALUE"),
        ("allow_other=1", "takes no value"),
        ("uid=-1", "no user '-1'"),
        ("uid=4294967295", "below 4294967295"),
        ("uid=no-such-user-here", "a number would do"),
        ("gid=\u0663", "no group"),
        ("umask=888", "octal"),
        ("umask=-22", "octal"),
        ("umask=7777", "octal"),
        ("umask=1000", "octal"),
        ("symlinks=follow", "keep or rewrite"),
        ("verify=always", "never or open"),
        ("driver=kernel-of-truth", "known: kernel, fusepy"),
        ("x\x1b[31m", "x.x1b"),
    ],
)
def test_what_cannot_be_meant_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidMountOption, match=said):
        parse_options(["ro", text])


def test_sloppy_means_that_only_unknown_options_are_ignored() -> None:
    assert parse_options(["what=ever,else"], ignore_unknown=True) == MountOptions()
    with pytest.raises(InvalidMountOption):
        parse_options(["umask=9"], ignore_unknown=True)


def test_defaults_are_safe() -> None:
    options = MountOptions()
    assert (options.suid, options.dev, options.allow_other, options.read_write) == (False, False, False, False)
