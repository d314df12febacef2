"""The files for editors: the schema of context files in both syntaxes of RELAX NG with documentation, the
files by which editors find it, and the line of a context file that names it.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from lxml import etree
from needs import need

from zmsvc.ctl import __main__ as zmsvcctl

ROOT = Path(__file__).parents[2]
DATA = ROOT / "zmsvc" / "data"
EXAMPLES = (ROOT / "etc/zmsvc/Context-EchoAction.xml", DATA / "examples/Context-StateMachine.xml")
RNG = "{http://relaxng.org/ns/structure/1.0}"
DOCUMENTATION = "{http://relaxng.org/ns/compatibility/annotations/1.0}documentation"
EXPLAINED_BY_THEIR_PARENTS = {"Task", "message", "header", "content", "service", "arg", "xml:space"}
NAME = "urn:zmsvc:context"


def test_the_compact_schema_is_made_of_the_other_one() -> None:
    files = runpy.run_path(str(ROOT / "scripts" / "compact_schema.py"), run_name="script")["FILES"]
    assert {file.name for file in files} == {"context.rnc"}
    for file, text in files.items():
        assert file.read_text() == text, "make options"


def test_each_element_and_attribute_is_documented() -> None:
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


def model(file: Path) -> dict[str, str]:
    """Return the pseudo-attributes of the only xml-model instruction before the root element."""
    before = etree.parse(file).getroot().itersiblings(preceding=True)
    (found,) = [each for each in before if isinstance(each, etree._ProcessingInstruction)]
    assert found.target == "xml-model"
    return {str(name): str(value) for name, value in found.attrib.items()}


def xmllint(*words: str | Path, catalog: Path) -> subprocess.CompletedProcess[str]:
    need(shutil.which("xmllint"), "xmllint is not installed (apt-get install libxml2-utils)")
    environment = os.environ | {"XML_CATALOG_FILES": str(catalog)}
    return subprocess.run(
        ["xmllint", "--noout", "--nonet", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.name)
def test_xmllint_finds_the_schema_by_the_name_in_the_file(tmp_path: Path, example: Path) -> None:
    named = model(example)
    assert named["schematypens"] == RNG.strip("{}")
    bad = tmp_path / "bad.xml"
    bad.write_text(example.read_text().replace('serviceType="Process"', 'serviceType="Proces"'))
    done = [
        xmllint("--relaxng", named["href"], file, catalog=DATA / "catalog.xml") for file in (example, bad)
    ]
    assert [each.returncode for each in done] == [0, 3], done
    assert "Invalid attribute serviceType" in done[1].stderr


def test_a_file_that_create_makes_names_the_schema_and_is_read_without_a_catalog(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--service_path", str(tmp_path), "--context_name=Web", "--task_id=ts_1"]
    create = ["create", *place, "--command", "/bin/sleep 1000"]
    assert zmsvcctl.main(create) == 0
    file = tmp_path / "Conf/Context-Web.xml"
    assert model(file)["href"] == NAME
    assert xmllint("--relaxng", NAME, file, catalog=DATA / "catalog.xml").returncode == 0
    (tmp_path / "empty.xml").write_text('<catalog xmlns="urn:oasis:names:tc:entity:xmlns:xml:catalog"/>')
    silent = xmllint(file, catalog=tmp_path / "empty.xml")
    assert (silent.returncode, silent.stdout + silent.stderr) == (0, "")
    assert ElementTree.parse(file).getroot().tag == "Context"
    assert zmsvcctl.main(["check", str(file)]) == 0
    capsys.readouterr()
    # A file that an earlier release has made is complete as well.
    for text in (file.read_text(), file.read_text().partition("\n")[2]):
        file.write_text(text)
        assert zmsvcctl.main(create) == 0
        assert f"unchanged {file}\n" in capsys.readouterr().out
        assert file.read_text() == text
