"""What happens to whom: endpoints of records, and prognosis of each patient."""
