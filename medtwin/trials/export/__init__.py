"""What leaves a simulated trial as data: the patients of one replayed trial, ADaM datasets, Dataset-JSON."""
