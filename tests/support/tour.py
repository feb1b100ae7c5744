"""What the README's tour finds in the registries that it pulls from: small images, the same each time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.built_images import OCI_INDEX, BuiltImage, image, index
from tests.support.layers import Member, dir_, file, layer, symlink, whiteout
from tests.support.registry import Handler, Registry

_DAY_S = 86400
_T_2024 = 1_704_067_200
_CONF = b"port = 80\nworkers = 2\nlog = stdout\n"


def _ns(day: int) -> int:
    """Return the time *day* days into 2024."""
    return (_T_2024 + day * _DAY_S) * 10**9


def _alpine(version: str, day: int, architecture: str = "amd64") -> tuple[bytes, BuiltImage]:
    at = _ns(day)
    members: list[Member] = [
        dir_("bin", mtime_ns=at),
        file("bin/busybox", b"\x7fELF " + f"{architecture} {version} ".encode() * 40_000, mode=0o755, mtime_ns=at),
        file("bin/bbsuid", b"\x7fELF" + bytes(14_000), mode=0o4755, mtime_ns=at),
        symlink("bin/sh", "/bin/busybox", mtime_ns=at),
        dir_("etc", mtime_ns=at),
        file("etc/alpine-release", f"{version}\n".encode(), mtime_ns=at),
        file("etc/os-release", f'NAME="Alpine Linux"\nID=alpine\nVERSION_ID={version}\n'.encode(), mtime_ns=at),
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nwww:x:82:82::/srv:/sbin/nologin\n", mtime_ns=at),
        file("etc/group", b"root:x:0:\nwww:x:82:\n", mtime_ns=at),
    ]
    base = layer(*members)
    built = image(
        [base],
        architecture=architecture,
        created=_moment(day),
        config={"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
        history=[
            {"created": _moment(day), "created_by": "ADD rootfs.tar.gz / # buildkit"},
            {"created": _moment(day), "created_by": 'CMD ["/bin/sh"]', "empty_layer": True},
        ],
    )
    return base, built


def _moment(day: int) -> str:
    month, rest = divmod(day, 28)
    return f"2024-{month + 1:02}-{rest + 1:02}T12:00:00Z"


def _web(base: bytes, version: str, day: int, *members: Member) -> BuiltImage:
    at = _ns(60)
    app = layer(
        file("etc/web.conf", _CONF, mtime_ns=at),
        dir_("srv", mtime_ns=at),
        file("srv/app.py", b"print('hello')\n" * 200, mtime_ns=at),
        file("srv/style.css", b"body { margin: 0 }\n" * 50, uid=82, gid=82, mtime_ns=at),
        dir_("var", mtime_ns=at),
    )
    top = layer(*members)
    return image(
        [base, app, top],
        created=_moment(day),
        config={
            "Cmd": ["/bin/sh", "/srv/app.py"],
            "Env": ["PATH=/bin", f"VERSION={version}"],
            "Labels": {"org.opencontainers.image.vendor": "acme", "version": version},
        },
        history=[
            {"created": _moment(50), "created_by": "ADD rootfs.tar.gz / # buildkit"},
            {"created": _moment(60), "created_by": "COPY etc srv var / # buildkit"},
            {"created": _moment(day), "created_by": f"ENV VERSION={version}", "empty_layer": True},
            {"created": _moment(day), "created_by": "RUN /srv/configure # buildkit"},
        ],
    )


def _search(handler: Handler) -> bool:
    found = [
        {"name": "alpine", "description": "A minimal Docker image based on Alpine Linux", "star_count": 11000}
        | {"is_official": True},
        {"name": "acme/web", "description": "Serves what is below /srv", "star_count": 12, "is_official": False},
    ]
    handler.answer(200, json.dumps({"results": found}).encode(), {"Content-Type": "application/json"})
    return True


@contextmanager
def tour_registries(folder: Path) -> Iterator[dict[str, str]]:
    """Serve docker.io and quay.io, as far as the tour goes, and yield the environment in which they are found.

    *folder* takes the configuration.
    """
    _, old = _alpine("3.19.1", 26)
    base, new = _alpine("3.20.0", 50)
    _, arm = _alpine("3.20.0", 50, "arm64")
    platforms = [
        new.descriptor(platform={"os": "linux", "architecture": "amd64"}),
        arm.descriptor(platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
    ]
    one = _web(base, "1.0", 80, file("var/cache", b"x" * 999))
    two = _web(
        base,
        "1.1",
        120,
        file("etc/web.conf", _CONF.replace(b"= 2", b"= 8"), mode=0o640, mtime_ns=_ns(120)),
        file("srv/metrics.py", b"print('metrics')\n", mtime_ns=_ns(120)),
        whiteout("srv/style.css"),
    )
    with Registry() as registry:
        hub = "docker.io"
        registry.put(f"{hub}/library/alpine", old, "3.19")
        registry.put(f"{hub}/library/alpine", new)
        registry.put(f"{hub}/library/alpine", arm)
        registry.put_manifest(f"{hub}/library/alpine", index(platforms), "3.20", "latest", media_type=OCI_INDEX)
        registry.put(f"{hub}/acme/web", one, "1.0")
        registry.put(f"{hub}/acme/web", two, "1.1", "edge")
        registry.put("quay.io/acme/tool", image([layer(file("tool", b"tool"))], created=_moment(10)), "latest")
        registry.fault("/v1/search", _search, every_time=True)
        text = "".join(
            f'[[registry]]\nprefix = "{host}"\nlocation = "{registry.host}/{host}"\ninsecure = true\n'
            for host in (hub, "quay.io")
        )
        (folder / "registries.conf").write_text(text)
        yield {
            "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
            "DOCKER_DEFAULT_PLATFORM": "linux/amd64",
        }
