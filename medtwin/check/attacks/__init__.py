"""Attacks on twins: what somebody who has them learns of the people they were learned from, against a control.

Every attack is tried on training subjects and on as many real people whom training did not see; what it finds of the
latter it finds without the twins' having seen anybody. A map: `table` makes one row of attributes per person, `risk` is
an excess over the control with its interval, `singling_out`, `linkability` and `inference` are the attacks behind the
European criteria of anonymisation, `membership` judges scores that `membership_scores` makes, `canaries` audits
training by made-up people, `suite` runs all of it, in groups of people and for those who are least like others, and
`measures` says it for gates. The rows that findings hold are in `check.attack_rows`.
"""
