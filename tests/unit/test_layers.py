"""The rules of the house: imports go one way, Dagster stays at the edge, package files hold a docstring."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAGES = [
    "corpus",
    "chunks",
    "index",
    "evaluation",
    "experiments",
    "releases",
    "monitoring",
    "governance",
    "finetuning",
]
MODULES = sorted(path for folder in ("assets", "pipelines", "resources") for path in (ROOT / folder).rglob("*.py"))
HEAVY = {
    "pandas", "numpy.random", "great_expectations", "evaluate", "datasets", "openai", "sklearn", "scipy", "nltk",
    "kreuzberg", "matplotlib", "langchain_text_splitters", "pyarrow", "sacrebleu", "rouge_score", "apprise",
    "fsspec", "s3fs", "sqlalchemy", "httpx", "trafilatura", "presidio_analyzer", "phonenumbers", "py3langid", "torch",
    "optuna", "mlflow",
}  # fmt: skip


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Modules a file imports; those of the TYPE_CHECKING block are left out of the top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if not top_level_only else iter(tree.body)
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0]
    forbidden = {"resources": ("assets", "pipelines"), "assets": ("pipelines",), "pipelines": ()}[layer]
    for name in imported(path):
        assert name.split(".")[0] not in forbidden, f"{relative(path)} imports {name}"
    if "gateway" in path.parts:
        assert not any(name.startswith("assets") for name in imported(path))


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parts[-3] == "assets" or "metrics" in path.parts], ids=relative
)
def test_stages_import_only_earlier_stages(path: Path) -> None:
    stage = path.relative_to(ROOT / "assets").parts[0]
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "assets" and len(parts) > 1 and parts[1] in STAGES and parts[1] != stage:
            assert STAGES.index(parts[1]) < STAGES.index(stage), f"{relative(path)} imports {name}"
            assert not (stage == "finetuning" and parts[1] not in {"evaluation", "monitoring"})


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[len(ROOT.parts)] != "pipelines"], ids=relative)
def test_only_assets_and_checks_import_dagster(path: Path) -> None:
    allowed = path.name in {"assets.py", "checks.py"} or relative(path) == "assets/dagster_support.py"
    assert allowed or not any(name.split(".")[0] == "dagster" for name in imported(path))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_heavy_libraries_are_imported_inside_functions(path: Path) -> None:
    heavy = {name for name in imported(path, top_level_only=True) if name.split(".")[0] in HEAVY}
    assert not heavy, f"{relative(path)} imports {heavy} when it loads"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_every_module_says_what_belongs_here(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{relative(path)} has no docstring"
    if path.name == "__init__.py":
        assert len(tree.body) == 1, f"{relative(path)} holds more than a docstring"
