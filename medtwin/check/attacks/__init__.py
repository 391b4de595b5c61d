"""Attacks on twins: what somebody who has them learns of the people they were learned from, against a control.

Every attack is tried on training subjects and on as many real people whom training did not see; what it finds of the
latter it finds without the twins' having seen anybody. A map: `table` makes one row of attributes per person, `risk` is
an excess over the control with its interval, `singling_out`, `linkability` and `inference` are the attacks behind the
European criteria of anonymisation, `membership` judges scores that `membership_scores` makes, `planting` makes
canaries and `canaries` audits the training that had them, `suite` runs all that records tell, in groups of people and
for those who are least like others, `images` attacks images, and `measures` says it for gates. The rows that findings
hold are in `check.attack_rows`.
"""
