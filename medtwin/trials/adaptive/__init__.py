"""Analysis of trials with interim looks from data by stage: what needs both designs and data."""
