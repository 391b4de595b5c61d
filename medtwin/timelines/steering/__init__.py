"""From known records: abduction, counterfactual twins, records that go on, twins between two."""
