"""What leaves a simulated trial as data: the patients of one replayed trial, ADaM datasets, Dataset-JSON.

| question | files |
|---|---|
| the patients of one trial, and how it ended | patients; what else is known of them: records |
| ADaM datasets | adam; names, labels and types of variables: variables |
| Dataset-JSON | dataset_json |
"""
