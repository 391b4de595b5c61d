"""PACS, out and in: C-STORE, STOW-RS, and reading by QIDO-RS and WADO-RS. The door is `medtwin.dicom.network`."""
