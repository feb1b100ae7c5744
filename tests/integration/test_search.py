"""``search``: Docker Hub's API, other registries' catalogs, and answers that nobody should trust."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.built_images import image, tar
from tests.support.commands import imagefs
from tests.support.registry import Handler, Registry, endless, redirect, status

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
    assert [line.split("   ")[0] for line in out.splitlines()] == ["NAME", "nginx", "acme/nginx", "evil/app"]
    assert "Official build of Nginx. more" in out
    assert "…" in out
    assert out.splitlines()[1].endswith("19000   [OK]")
    assert "\x1b" not in out + err
    (asked,) = registry.asked("/v1/search")
    assert asked.query == {"q": ["nginx web"], "n": ["10"]}
    assert asked.authorization is None


def test_results_are_filtered_and_formatted(tmp_path: Path, registry: Registry) -> None:
    answer_with(registry, "/v1/search", {"results": HUB})
    assert search(tmp_path, "nginx", "-f", "is-official=true", "--format", "{{.Name}}")[1] == "nginx\n"
    assert search(tmp_path, "nginx", "-f", "stars=3", "--format", "{{.Name}} {{.StarCount}}")[1] == (
        "nginx 19000\nacme/nginx 3\n"
    )
    full = search(tmp_path, "nginx", "--no-trunc")[1]
    assert "more" * 1 in full
    assert "…" not in full
    first = json.loads(search(tmp_path, "nginx", "--json")[1].splitlines()[0])
    assert (first["Name"], first["IsOfficial"]) == ("nginx", True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("x", "-f", "is-oficial=true"), "unknown key 'is-oficial'; did you mean is-official?"),
        (("x", "-f", "is-official=maybe"), "expected true or false"),
        (("x", "-f", "stars=many"), "expected a number of stars"),
        (("x", "--limit", "0"), "expected a number from 1 to 100, not '0'"),
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


def test_a_catalog_is_read_page_by_page_and_not_for_ever(tmp_path: Path, registry: Registry) -> None:
    registry.fault("/v1/", status(404), every_time=True)
    answer_with(registry, "/v2/_catalog", {"repositories": ["one"]}, Link='</v2/_catalog?again>; rel="next"')
    assert search(tmp_path, f"{registry.host}/", "--format", "{{.Name}}")[:2] == (0, f"{registry.host}/one\n")
    assert len(registry.asked("/v2/_catalog")) == 20


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
    registry.fault("/v1/search", status(503), every_time=True)


def test_what_is_found_can_be_pulled(tmp_path: Path, registry: Registry) -> None:
    registry.put("library/nginx", image([tar({"a": b"a"})]), "latest")
    answer_with(registry, "/v1/search", {"results": HUB})
    name = search(tmp_path, "nginx", "--limit", "1", "--format", "{{.Name}}")[1].strip()
    environment = {"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf"), "HOME": str(tmp_path)}
    imagefs("--store", tmp_path / "store", "pull", "--platform", "linux/amd64", name, env=environment)
