"""Images into DICOM files; `medtwin.dicom.write` is the door."""
