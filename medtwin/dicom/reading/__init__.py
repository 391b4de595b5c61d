"""DICOM files into series; `medtwin.dicom.read` is the door."""
