"""The public face of the engine is small, whole, and costs nothing until it is used."""

import subprocess
import sys

import pytest

import dnd_core

FACE = """
ArrayImages Backends Candidate CandidateConfig Captioner ConceptImages DescribeConfig DndError Evidence FolderImages
ImageEncoder ImageSet Network ProbeImage ProbingConfig Run SelectionConfig Status Subset Summarizer TextEncoder UnitId
VerificationConfig assemble describe list_layers load
"""


def test_the_public_face_is_this_and_nothing_else():
    """Whoever adds a name here promises to keep it."""
    assert dnd_core.__all__ == FACE.split()
    assert set(dnd_core._HOME) == set(dnd_core.__all__)


@pytest.mark.parametrize("name", FACE.split())
def test_every_name_is_there_with_a_docstring_and_exported_by_its_home(name):
    found = getattr(dnd_core, name)
    home = sys.modules[dnd_core._HOME[name]]
    assert getattr(home, name) is found
    assert name in home.__all__
    assert found.__doc__


def test_what_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'describer'"):
        _ = dnd_core.describer
    assert set(dnd_core.__all__) <= set(dir(dnd_core))


def test_importing_the_engine_imports_nothing_heavy():
    code = (
        "import sys\nbefore = set(sys.modules)\nimport dnd_core\n"
        "print([m for m in ('torch', 'numpy', 'pandas', 'PIL') if m in set(sys.modules) - before])\n"
        "from dnd_core import DescribeConfig, DndError\n"
        "print([m for m in ('torch', 'pandas', 'PIL') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
