"""Known truth for tests of descriptions: a network whose units compute known things, and drawn images.

    network, probe = analytic_network(seed=0), draw_probe(seed=0)
    captioner, concepts = OracleCaptioner(noise=0.1), OracleConceptImages()

Describe ``network`` on ``probe`` with any summarizer, and :func:`judge` what it says of each unit against
``network.module.truth``. ``benchmarks/recovery.py`` does so and prints the rates.
"""

from dnd_core.testing.concepts import ATTRIBUTES, Concept, parse
from dnd_core.testing.drawing import draw_probe, draw_scene
from dnd_core.testing.judging import baselines, judge
from dnd_core.testing.network import AnalyticNetwork, analytic_network
from dnd_core.testing.oracles import DrawnSpace, OracleCaptioner, OracleConceptImages
from dnd_core.testing.units import KINDS, AnalyticUnit
from dnd_core.testing.words import WordVectors

__all__ = [
    "ATTRIBUTES",
    "KINDS",
    "AnalyticNetwork",
    "AnalyticUnit",
    "Concept",
    "DrawnSpace",
    "OracleCaptioner",
    "OracleConceptImages",
    "WordVectors",
    "analytic_network",
    "baselines",
    "draw_probe",
    "draw_scene",
    "judge",
    "parse",
]
