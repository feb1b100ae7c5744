"""``search``: Docker Hub's API, other registries' catalogs, and answers that nobody should trust."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.built_images import REF_NAME, image, layout, tar, write
from tests.support.commands import imagefs, needs
from tests.support.podman import podman_storage
from tests.support.real_registry import PASSWORD, USER, real_registry
from tests.support.registry import Fault, Handler, Registry, endless, redirect, status

HUB = [
    {
        "name": "nginx",
        "description": "Official build of\n Nginx." + " more" * 20,
        "star_count": 19000,
        "is_official": True,
    },
    {"name": "acme/nginx", "description": None, "star_count": 3, "is_official": False},
    {"name": "evil/\x1b[31mname", "description": "", "star_count": 1},
    {"name": "evil/app", "description": "clear\x1b[2Jscreen", "star_count": -5, "is_official": "yes"},
    "nonsense",
    {"description": "no name"},
    {"name": "acme/true", "star_count": True},
]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry() as registry:
        text = f'[[registry]]\nprefix = "docker.io"\nlocation = "{registry.host}"\ninsecure = true\n'
        (tmp_path / "registries.conf").write_text(text)
        yield registry


def answer_with(registry: Registry, where: str, document: object, **headers: str) -> None:
    def answer(handler: Handler) -> bool:
        handler.answer(200, json.dumps(document).encode(), {"Content-Type": "application/json", **headers})
        return True

    registry.fault(where, answer, every_time=True)


def search(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    environment = {"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf"), "HOME": str(tmp_path)}
    done = imagefs("search", *arguments, env=environment, check=False)
    return done.returncode, done.stdout, done.stderr


def test_hub_is_searched_and_official_images_are_marked(tmp_path: Path, registry: Registry) -> None:
    answer_with(registry, "/v1/search", {"results": HUB})
    code, out, err = search(tmp_path, "nginx web", "--limit", "10")
    assert code == 0
    assert [line.split("   ")[0] for line in out.splitlines()] == [
        "NAME",
        "nginx",
        "acme/nginx",
        "evil/app",
        "acme/true",
    ]
    assert "Official build of Nginx. more" in out
    assert "…" in out
    assert out.splitlines()[1].endswith("19000   [OK]")
    assert "\x1b" not in out + err
    assert out.splitlines()[-1].split() == ["acme/true", "0"]
    (asked,) = registry.asked("/v1/search")
    assert asked.query == {"q": ["nginx web"], "n": ["10"]}
    assert asked.authorization is None


def test_results_are_filtered_and_formatted(tmp_path: Path, registry: Registry) -> None:
    answer_with(registry, "/v1/search", {"results": HUB})
    assert search(tmp_path, "nginx", "-f", "is-official=true", "--format", "{{.Name}}")[1] == "nginx\n"
    assert search(tmp_path, "nginx", "-f", "stars=3", "--format", "{{.Name}} {{.StarCount}}")[1] == (
        "nginx 19000\nacme/nginx 3\n"
    )
    marks = search(tmp_path, "nginx", "--format", "{{.Name}}{{.IsOfficial}}{{if .IsOfficial}}!{{end}}")[1]
    assert marks.splitlines()[:2] == ["nginx[OK]!", "acme/nginx"]
    full = search(tmp_path, "nginx", "--no-trunc")[1]
    assert "more" * 1 in full
    assert "…" not in full
    first = json.loads(search(tmp_path, "nginx", "--json")[1].splitlines()[0])
    assert (first["Name"], first["IsOfficial"]) == ("nginx", True)


def test_official_images_are_found_by_the_name_that_hub_has_for_them(tmp_path: Path, registry: Registry) -> None:
    answer_with(registry, "/v1/search", {"results": HUB})
    assert search(tmp_path, "docker.io/library/nginx")[0] == 0
    (asked,) = registry.asked("/v1/search")
    assert asked.query["q"] == ["nginx"]


def test_a_search_that_fails_for_a_moment_is_repeated(tmp_path: Path, registry: Registry) -> None:
    registry.fault("/v1/search", status(503, Retry_After="0"), status(429, Retry_After="0"))
    answer_with(registry, "/v1/search", {"results": HUB})
    assert search(tmp_path, "nginx", "--limit", "1", "--format", "{{.Name}}")[:2] == (0, "nginx\n")
    assert len(registry.asked("/v1/search")) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x", "-f", "is-oficial=true"), "unknown key 'is-oficial'; did you mean is-official?"),
        (("x", "-f", "is-official=maybe"), "expected true or false"),
        (("x", "-f", "stars=many"), "expected a number of stars"),
        (("x", "--limit", "0"), "expected a number from 1 to 100, not '0'"),
        (("",), "expected something to search for"),
        (("docker.io/",), "expected something to search for"),
        (("x", "--limit", "101"), "expected a number from 1 to 100, not '101'"),
    ],
)
def test_wrong_questions_are_not_asked(
    tmp_path: Path, registry: Registry, arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = search(tmp_path, *arguments)
    assert (code, said in err) == (2, True), err
    assert not registry.asked("")


def test_another_registry_is_searched_or_its_catalog(tmp_path: Path, registry: Registry) -> None:
    registry.fault("/v1/", status(404), every_time=True)
    pages = {"repositories": ["team/app", "team/APP", "tool", "other/application"]}
    answer_with(registry, "/v2/_catalog", pages)
    found = search(tmp_path, f"{registry.host}/app", "--format", "{{.Name}}")
    assert found[:2] == (0, f"{registry.host}/team/app\n{registry.host}/other/application\n")
    assert "lists 'team/APP' as a repository, which is none" in found[2]
    everything = search(tmp_path, f"{registry.host}/", "--format", "{{.Name}}")[1]
    assert len(everything.splitlines()) == 3
    assert len(registry.asked("/v1/search")) == 1, "without a term there is nothing to search for"


@pytest.mark.parametrize(
    "answer",
    [
        status(401),
        status(405),
        status(503),
        status(200, b"<!DOCTYPE html><title>Log in</title>"),
        status(200, b'{"num_results": 0}'),
        endless(),
        redirect("http://169.254.169.254/latest"),
    ],
)
def test_whatever_else_than_results_another_registry_answers_its_catalog_is_read(
    tmp_path: Path, registry: Registry, answer: Fault
) -> None:
    registry.fault("/v1/search", answer, every_time=True)
    answer_with(registry, "/v2/_catalog", {"repositories": ["team/app"]})
    found = search(tmp_path, f"{registry.host}/app", "--format", "{{.Name}}")
    assert found == (0, f"{registry.host}/team/app\n", "")


def test_a_catalog_is_read_with_a_token_for_catalogs(tmp_path: Path, registry: Registry) -> None:
    registry.realm = f"{registry.url}/token"
    registry.fault("/v1/", status(404), every_time=True)

    def catalog(handler: Handler) -> bool:
        if registry.seen[-1].authorization is None:
            return False
        handler.answer(200, b'{"repositories": ["team/app"]}')
        return True

    registry.fault("/v2/_catalog", catalog, every_time=True)
    found = search(tmp_path, f"{registry.host}/app", "--format", "{{.Name}}")
    assert found == (0, f"{registry.host}/team/app\n", "")
    assert registry.asked("/token")[-1].query["scope"] == ["registry:catalog:*"]


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (status(404), 3, "offers neither a search nor a catalog of its repositories; 'imagefs tags"),
        (status(403), 4, "the catalog of"),
        (status(401), 4, "the catalog of"),
        (status(405), 3, "answered the request for the catalog of"),
        (status(200, b'{"repositories": "all"}'), 6, "expected a list of 'repositories'"),
    ],
)
def test_a_catalog_that_is_refused_is_told_apart_from_one_without_the_term(
    tmp_path: Path, registry: Registry, answer: Fault, code: int, said: str
) -> None:
    registry.fault("/v1/search", status(404), every_time=True)
    registry.fault("/v2/_catalog", answer, every_time=True)
    found = search(tmp_path, f"{registry.host}/app")
    assert (found[0], found[1], said in found[2]) == (code, "", True), found
    assert "pull access denied" not in found[2]


def test_of_a_registry_that_is_configured_below_a_path_only_what_is_there_is_listed(
    tmp_path: Path, registry: Registry
) -> None:
    text = f'[[registry]]\nprefix = "example.com"\nlocation = "{registry.host}/proxy"\ninsecure = true\n'
    (tmp_path / "registries.conf").write_text(text)
    answer_with(registry, "/v2/_catalog", {"repositories": ["app", "proxy/team/app", "proxyapp/other"]})
    assert search(tmp_path, "example.com/", "--format", "{{.Name}}")[:2] == (0, "example.com/team/app\n")


def test_a_catalog_is_read_page_by_page_and_not_for_ever(tmp_path: Path, registry: Registry) -> None:
    registry.fault("/v1/", status(404), every_time=True)
    answer_with(registry, "/v2/_catalog", {"repositories": ["one"]}, Link='</v2/_catalog?again>; rel="next"')
    assert search(tmp_path, f"{registry.host}/", "--format", "{{.Name}}") == (0, f"{registry.host}/one\n", "")
    assert len(registry.asked("/v2/_catalog")) == 2


def test_a_catalog_does_not_go_on_at_another_host(tmp_path: Path, registry: Registry) -> None:
    registry.fault("/v1/", status(404), every_time=True)
    with Registry() as other:
        answer_with(registry, "/v2/_catalog", {"repositories": ["one"]}, Link=f'<{other.url}/v2/_catalog>; rel="next"')
        code, out, err = search(tmp_path, f"{registry.host}/", "--format", "{{.Name}}")
        assert (code, out) == (0, f"{registry.host}/one\n")
        assert "goes on at another host, which is not asked" in err
        assert not other.seen


def test_of_a_catalog_without_end_a_part_is_read_and_that_is_said(tmp_path: Path, registry: Registry) -> None:
    registry.fault("/v1/", status(404), every_time=True)

    def page(handler: Handler) -> bool:
        number = len(registry.asked("/v2/_catalog"))
        body = json.dumps({"repositories": [f"app{number}"]}).encode()
        handler.answer(200, body, {"Link": f'</v2/_catalog?last=app{number}>; rel="next"'})
        return True

    registry.fault("/v2/_catalog", page, every_time=True)
    code, out, err = search(tmp_path, f"{registry.host}/app7", "--format", "{{.Name}}")
    assert code == 0
    assert len(out.splitlines()) == 11
    assert "has more than 100 pages; the rest was not read" in err


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "expected a list of 'results'"),
        ({"results": {}}, "expected a list of 'results'"),
        (None, "expected a list"),
    ],
)
def test_answers_without_sense_are_refused(tmp_path: Path, registry: Registry, document: object, said: str) -> None:
    answer_with(registry, "/v1/search", document)
    code, out, err = search(tmp_path, "x")
    assert (code, out, said in err) == (6, "", True), err


def test_an_endless_answer_and_a_detour_end(tmp_path: Path, registry: Registry) -> None:
    registry.fault("/v1/search", endless())
    code, _, err = search(tmp_path, "x")
    assert (code, "search results" in err) == (6, True), err
    registry.fault("/v1/search", redirect("http://169.254.169.254/latest"))
    code, _, err = search(tmp_path, "x")
    assert (code, "refused" in err) == (3, True), err


def test_what_is_found_can_be_pulled(tmp_path: Path, registry: Registry) -> None:
    registry.put("library/nginx", image([tar({"a": b"a"})]), "latest")
    answer_with(registry, "/v1/search", {"results": HUB})
    name = search(tmp_path, "nginx", "--limit", "1", "--format", "{{.Name}}")[1].strip()
    environment = {"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf"), "HOME": str(tmp_path)}
    imagefs("--store", tmp_path / "store", "pull", "--platform", "linux/amd64", name, env=environment)


@pytest.mark.tools
@needs("docker-registry")
@needs("skopeo")
@needs("podman")
def test_a_registry_behind_a_login_lists_what_podman_finds_there(tmp_path: Path) -> None:
    built = image([tar({"a": b"a"})])
    source = write(tmp_path / "layout", layout([built], [built.descriptor(annotations={REF_NAME: "one"})]))
    with real_registry(tmp_path / "registry", password=True) as real, podman_storage() as podman:
        for name in ("team/app", "tool", "other/application"):
            real.push(source, "one", f"{name}:1")
        entry = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        authfile = tmp_path / "auth.json"
        authfile.write_text(json.dumps({"auths": {real.host: entry}}))
        options = ("--authfile", authfile, "--tls-verify=false", "--format", "{{.Name}}")
        for term, count in (("app", 2), ("", 3), ("nothing", 0), ("team/app", 1)):
            theirs = podman("search", *options, f"{real.host}/{term}").stdout.split()
            ours = search(tmp_path, *map(str, options), f"{real.host}/{term}")
            assert (ours[0], ours[1].split()) == (0, theirs), ours
            assert len(theirs) == count
        code, _, err = search(tmp_path, f"{real.host}/app")
        assert (code, "the catalog of" in err) == (4, True), err
