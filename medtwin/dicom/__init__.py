"""DICOM in and out; the only home of pydicom, highdicom and pynetdicom. See docs/dicom_*.md.

A map of the room:

- What all speak: `values` (what a header says, or nothing), `terms` (closed lists), `uids`.
- `read` is the door of `reading/`: `media` and `archive` find files; `headers` judges one, by `quick` where it is
  plain, with `pixel_checks` and, for multi-frame objects, `enhanced`; `stacks` makes `series`, whose pixels `decode`
  gives.
- `deidentify` writes what may leave a source, `classic` in the words of single-frame classes; `findings_tag` reads
  findings before text goes; `labels` reads pictures with a label table.
- `write` is the door of `writing/`: `study` (who and what), `projection`, `volume`, `secondary`, `segmentation`,
  `report`; `syntaxes`, `files` and `media` bring them to disk.
- `validate` is the door of `checks/`, `network` that of `remote/` (C-STORE, STOW-RS, QIDO-RS, WADO-RS).
"""

from medtwin.dicom.deidentify import deidentify_series, series_to_image_row
from medtwin.dicom.read import has_dicom, open_series, read_folder
from medtwin.dicom.reading.series import Series
from medtwin.dicom.uids import synthetic_uid
from medtwin.dicom.validate import validate_dataset, validate_folder, validate_series
from medtwin.dicom.write import (
    Patient,
    ProjectionImage,
    Study,
    Volume,
    projection_to_dataset,
    volume_to_datasets,
    write_series,
    write_volume,
)
from medtwin.dicom.writing.derived import Maker
from medtwin.dicom.writing.report import Measurement, labels_to_report
from medtwin.dicom.writing.segmentation import Segment, segmentation_to_dataset

__all__ = [
    "Maker",
    "Measurement",
    "Patient",
    "ProjectionImage",
    "Segment",
    "Series",
    "Study",
    "Volume",
    "deidentify_series",
    "has_dicom",
    "labels_to_report",
    "open_series",
    "projection_to_dataset",
    "read_folder",
    "segmentation_to_dataset",
    "series_to_image_row",
    "synthetic_uid",
    "validate_dataset",
    "validate_folder",
    "validate_series",
    "volume_to_datasets",
    "write_series",
    "write_volume",
]
