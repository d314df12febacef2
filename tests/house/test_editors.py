"""The files for editors: the schema of context files in both syntaxes of RELAX NG with documentation, and the
files by which editors find it.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from lxml import etree
from needs import need

ROOT = Path(__file__).parents[2]
DATA = ROOT / "zmsvc" / "data"
EXAMPLE = ROOT / "etc/zmsvc/Context-EchoAction.xml"
RNG = "{http://relaxng.org/ns/structure/1.0}"
DOCUMENTATION = "{http://relaxng.org/ns/compatibility/annotations/1.0}documentation"
EXPLAINED_BY_THEIR_PARENTS = {"Task", "message", "header", "content", "service", "arg", "xml:space"}
NAME = "urn:zmsvc:context"


def test_the_compact_schema_is_made_of_the_other_one() -> None:
    files = runpy.run_path(str(ROOT / "scripts" / "compact_schema.py"), run_name="script")["FILES"]
    assert {file.name for file in files} == {"context.rnc"}
    for file, text in files.items():
        assert file.read_text() == text, "make options"


def test_each_element_and_attribute_has_a_documentation() -> None:
    undocumented = set()
    for each in etree.parse(DATA / "context.rng").iter(f"{RNG}element", f"{RNG}attribute"):
        outer = next(
            (up for up in each.iterancestors(f"{RNG}element") if up.find(DOCUMENTATION) is not None), None
        )
        of_an_option = any(up.get("name") == "service" for up in each.iterancestors(f"{RNG}define"))
        # The parts of an option are explained with it.
        inside_option = of_an_option and outer is not None and outer.get("name") != "service"
        if each.get("name") and each.find(DOCUMENTATION) is None and not inside_option:
            undocumented.add(each.get("name"))
    assert undocumented <= EXPLAINED_BY_THEIR_PARENTS


@pytest.mark.parametrize("name", ["catalog.xml", "schemas.xml"])
def test_what_leads_to_the_schema_leads_to_a_file_beside_it(name: str) -> None:
    found = {each.get("uri") for each in etree.parse(DATA / name).getroot() if each.get("uri")}
    assert found
    assert all((DATA / str(each)).exists() for each in found)


def test_xmllint_finds_the_schema_by_its_name_in_the_catalog(tmp_path: Path) -> None:
    need(shutil.which("xmllint"), "xmllint is not installed (apt-get install libxml2-utils)")
    bad = tmp_path / "bad.xml"
    bad.write_text(EXAMPLE.read_text().replace('serviceType="Process"', 'serviceType="Proces"'))
    command = ["xmllint", "--noout", "--nonet", "--relaxng", NAME]
    environment = os.environ | {"XML_CATALOG_FILES": str(DATA / "catalog.xml")}
    done = [
        subprocess.run([*command, file], env=environment, capture_output=True, text=True, check=False)
        for file in (EXAMPLE, bad)
    ]
    assert [each.returncode for each in done] == [0, 3], done
    assert "Invalid attribute serviceType" in done[1].stderr
