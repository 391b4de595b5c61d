"""Files with one planted defect each: what a check of DICOM must find, written before the rules that find it."""
