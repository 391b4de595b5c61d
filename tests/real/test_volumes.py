"""A real series of slices as a volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medtwin.dicom import open_series
from medtwin.scans.reader import load_image
from medtwin.scans.volumes import VolumeGrid, along_patient

pytestmark = pytest.mark.real


def test_an_oblique_brain_lies_along_the_nearest_axes_of_the_patient_at_its_own_spacing(public_data: Path) -> None:
    folder = next((public_data / "mr_t1_studyforrest").rglob("*.dcm")).parent
    series = open_series(folder)
    values, affine = series.pixels(), series.affine()
    assert affine is not None
    oriented = along_patient(values, affine)
    assert oriented is not None
    assert np.array_equal(oriented.values, values)  # seven degrees from axial, feet first
    assert np.allclose(oriented.spacing_mm, (0.6667, 0.6667, 0.7), atol=1e-4)
    image = load_image(folder, VolumeGrid((8, 32, 32)).form().transform)
    assert image.spacing_mm is not None
    assert image.spacing_mm[0] == pytest.approx(384 * 0.6667 / 32, rel=1e-4)
