"""The code version of a Python function follows its file, and running the file is not needed."""

import sys

import pytest

from retrain_assets.spec.code import find_module, module_hash, source_file


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "code_package"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    (folder / "inner" / "sources.py").write_text("def load(window): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    assert not [name for name in sys.modules if name.startswith("code_package")]


def test_the_hash_changes_with_the_file_only(package):
    dotted = "code_package.inner.sources:load"
    before = module_hash(dotted)
    assert len(before) == 16
    assert module_hash("code_package.inner.sources:other") == before
    (package / "__init__.py").write_text("something = 'else'")
    assert module_hash(dotted) == before
    (package / "inner" / "sources.py").write_text("def load(window): return 1\n")
    assert module_hash(dotted) != before


@pytest.mark.parametrize("dotted", [None, "no_such_package.module:f", "math:sqrt", "__main__:f"])
def test_without_a_file_there_is_no_hash(dotted):
    assert module_hash(dotted) == ""


def test_modules_are_found_below_packages_without_init_files(package):
    found = find_module("code_package.inner.sources")
    assert source_file(found) == package / "inner" / "sources.py"
    assert find_module("code_package.inner.missing") is None
    assert find_module("code_package.inner.sources.deeper") is None


def test_a_package_without_init_file_has_no_source(package):
    assert source_file(find_module("code_package.inner")) is None
