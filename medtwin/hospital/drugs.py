"""How drugs are taken, and what the long-term ones are for."""

from __future__ import annotations

from dataclasses import dataclass

from medtwin.hospital import codes


@dataclass(frozen=True, slots=True)
class Dose:
    """How a drug is taken: `amount` `unit`, `times_a_day`, by `route`."""

    amount: float
    unit: str
    times_a_day: int
    route: str = codes.ORAL


# Usual doses: FDA labels.
DOSES: dict[str, Dose] = {
    codes.METFORMIN: Dose(500, "mg", 2),
    codes.GLARGINE: Dose(20, "[iU]", 1, codes.SUBCUTANEOUS),
    codes.LISINOPRIL: Dose(10, "mg", 1),
    codes.AMLODIPINE: Dose(5, "mg", 1),
    codes.ATORVASTATIN: Dose(20, "mg", 1),
    codes.FUROSEMIDE: Dose(40, "mg", 1),
    codes.CARVEDILOL: Dose(6.25, "mg", 2),
    codes.ALBUTEROL: Dose(0.18, "mg", 4, codes.INHALED),
    codes.FLUTICASONE_SALMETEROL: Dose(0.25, "mg", 2, codes.INHALED),
    codes.PREDNISONE: Dose(40, "mg", 1),
    codes.AMOXICILLIN: Dose(1000, "mg", 3),
    codes.AZITHROMYCIN: Dose(500, "mg", 1),
    codes.LEVOFLOXACIN: Dose(750, "mg", 1),
    codes.ANASTROZOLE: Dose(1, "mg", 1),
    codes.TAMOXIFEN: Dose(20, "mg", 1),
    codes.FERROUS_SULFATE: Dose(325, "mg", 1),
    codes.NAPROXEN: Dose(500, "mg", 2),
    codes.ACETAMINOPHEN: Dose(500, "mg", 3),
}

REASONS = {
    codes.METFORMIN: codes.DIABETES,
    codes.GLARGINE: codes.DIABETES,
    codes.AMLODIPINE: codes.HYPERTENSION,
    codes.LISINOPRIL: codes.HYPERTENSION,
    codes.ATORVASTATIN: codes.HYPERLIPIDEMIA,
    codes.FUROSEMIDE: codes.HEART_FAILURE,
    codes.CARVEDILOL: codes.HEART_FAILURE,
    codes.ALBUTEROL: codes.COPD,
    codes.FLUTICASONE_SALMETEROL: codes.COPD,
    codes.ANASTROZOLE: codes.BREAST_CANCER,
    codes.TAMOXIFEN: codes.BREAST_CANCER,
    codes.FERROUS_SULFATE: codes.ANEMIA,
    codes.NAPROXEN: codes.KNEE_OSTEOARTHRITIS,
    codes.ACETAMINOPHEN: codes.KNEE_OSTEOARTHRITIS,
}
"""Which problem a long-term drug is for."""
