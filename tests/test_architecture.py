"""The architecture is a test: which package may import which, and who owns each outside thing."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "imagefs"

# Each package may import itself, those named here, `errors` and `text`.
ALLOWED = {
    "text": set(),
    "errors": set(),
    "confinement": set(),
    "oci": set(),
    "registry": {"oci"},
    "store": {"oci"},
    "layer": {"confinement", "oci"},
    "overlay": {"oci", "layer"},
    "transfer": {"oci", "registry", "store", "layer"},
    "view": {"oci", "store", "layer", "overlay"},
    "mount": {"confinement", "oci", "store", "overlay", "view"},
    "compare": {"oci", "store", "layer", "overlay", "view"},
    "check": {"oci", "store", "layer", "overlay"},
    "cli": {"oci", "registry", "store", "layer", "overlay", "transfer", "view", "mount", "compare", "check", ""},
    "api": {"oci", "registry", "store", "layer", "overlay", "transfer", "view", "compare"},
    "": {"api"},
    "__main__": {"cli"},
}
# Finer than packages: single modules that may see more than their package.
EXCEPTIONS = {"imagefs/layer/indexed.py": {"store"}, "imagefs/overlay/stored.py": {"store"}}

OWNERS = {
    "requests": "imagefs/registry/http.py",
    "urllib3": "imagefs/registry/http.py",
    "zstandard": "imagefs/layer/compression.py",
    "isal": "imagefs/layer/compression.py",
    "sqlite3": "imagefs/store/database.py",
    "rich": "imagefs/transfer/progress.py",
    "argcomplete": "imagefs/cli/completion.py",
    "fuse": "imagefs/mount/fusepy_driver.py",
    "fsspec": "imagefs/api/fsspec.py",
}
LINE_CEILING = 450


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            if node.module == "imagefs":
                names.update(f"imagefs.{alias.name}" for alias in node.names if alias.name != "__version__")
    return names


def package_of(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_where_the_table_says(path: Path) -> None:
    relative = path.relative_to(ROOT)
    own = package_of(".".join(relative.with_suffix("").parts)) if relative.name != "__init__.py" else relative.parts[1:]
    package = own if isinstance(own, str) else ("" if len(own) == 1 else own[0])
    allowed = ALLOWED[package] | {package, "errors", "text"} | EXCEPTIONS.get(str(relative), set())
    for name in imports(path):
        if name == "imagefs" or name.startswith("imagefs."):
            assert package_of(name) in allowed | ({""} if name == "imagefs" else set()), f"{relative} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_outside_library_has_one_owner(path: Path) -> None:
    relative = str(path.relative_to(ROOT))
    for name in imports(path):
        top = name.split(".")[0]
        if top in OWNERS:
            assert OWNERS[top] == relative, f"{relative} imports {name}, which {OWNERS[top]} owns"
        else:
            assert top == "imagefs" or top in sys.stdlib_module_names, f"{relative} imports {name}, which nobody owns"


def test_values_do_no_input_or_output() -> None:
    for path in (PACKAGE / "oci").glob("*.py"):
        forbidden = {"os", "pathlib", "socket", "subprocess", "urllib.request", "io", "shutil"}
        assert not imports(path) & forbidden, path


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_about_one_thing(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINE_CEILING
    assert ast.get_docstring(ast.parse(path.read_text())), "say what this module receives, hands on and must not know"


def test_no_module_is_named_for_what_it_is_not() -> None:
    assert not {path.stem for path in modules()} & {"utils", "util", "helpers", "common", "manager", "misc"}
