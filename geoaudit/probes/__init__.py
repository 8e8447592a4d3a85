"""Probe sets: georeferenced images that a network is shown, from scenes, folders and torchgeo."""

from geoaudit.probes.base import Probe, Skip, skip_summary
from geoaudit.probes.contract import ContractNote, check_contract
from geoaudit.probes.datamodule import DataModuleProbe, Normalisation
from geoaudit.probes.folder import FolderProbe
from geoaudit.probes.nongeo import NonGeoProbe
from geoaudit.probes.painted import Artefact, PaintedProbe
from geoaudit.probes.raster import RasterProbe
from geoaudit.probes.scene import SceneProbe
from geoaudit.probes.splitting import Split, split

__all__ = [
    "Artefact",
    "ContractNote",
    "DataModuleProbe",
    "FolderProbe",
    "NonGeoProbe",
    "Normalisation",
    "PaintedProbe",
    "Probe",
    "RasterProbe",
    "SceneProbe",
    "Skip",
    "Split",
    "check_contract",
    "skip_summary",
    "split",
]
