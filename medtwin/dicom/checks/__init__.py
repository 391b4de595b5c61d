"""What makes a DICOM dataset valid: modules, conditions, values, closed terms, geometry, and what a set must share."""
