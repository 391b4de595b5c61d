"""The chart: writes what the hospital sees of a life as events (docs/conventions.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from medtwin.core.codes import NEGATED_PREFIX
from medtwin.core.events import Event
from medtwin.hospital import codes
from medtwin.hospital.drugs import DOSES, REASONS
from medtwin.hospital.imaging import NUM_IMAGES, ImageOrder, Modality, View, image_uid, with_labels
from medtwin.hospital.life import Life
from medtwin.hospital.observe import (
    BMI_HIGH,
    BMI_LOW,
    CHOLESTEROL_HIGH,
    EGFR_LOW,
    FEV1_TO_FVC_LOW,
    MEASURES,
    Pair,
    interpretation,
)
from medtwin.hospital.physiology import egfr_from_creatinine

SECOND = "second+00:00"
# Minutes after the start of an encounter.
_VITALS, _LABS, _DIAGNOSIS, _ORDER, _STUDY, _TREATMENT, _REPORT = 5, 10, 20, 22, 35, 40, 45


class Chart:
    """Writes the events of one subject; every id depends on (seed, subject, count) only.

    Attributes:
        events: The rows so far, each event before its children.
        orders: The images that were made.
        problems: Event id of the problem-list item by condition code.
    """

    def __init__(self, life: Life, seed: int, rng: np.random.Generator) -> None:
        self.life = life
        self.rng = rng
        self.events: list[Event] = []
        self.orders: list[ImageOrder] = []
        self.problems: dict[str, str] = {}
        self._seed = seed
        self._count = 0
        self._encounter: str | None = None
        self.start = self.end = life.laws.record.window_start

    @property
    def age(self) -> float:
        """Age in years at the start of the current encounter."""
        return self.life.age_of(self.start)

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return bool(self.rng.random() < probability)

    def write(self, code: str, resource: str, time: datetime | None, **columns: Any) -> Event:
        """Appends an event of the current encounter and returns it."""
        self._count += 1
        name = f"{self._seed}/{self.life.person.subject_id}/{self._count}"
        digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        # The first digit is a letter: some FHIR servers refuse numeric ids.
        event_id = f"a{digest[1:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"
        values: dict[str, Any] = {"encounter_id": self._encounter, "time_precision": SECOND} | columns
        event = Event(self.life.person.subject_id, time, code, event_id=event_id, resource=resource, **values)
        self.events.append(event)
        return event

    def detail(self, event: Event, path: str, code: str | None = None, **values: Any) -> None:
        """Appends a child row of an event."""
        self.events.append(event.child(path, code, **values))

    def fact(self, code: str, time: datetime | None = None, precision: str | None = None) -> None:
        """Appends a fact of the Patient: static, or at a time."""
        self.events.append(Event(self.life.person.subject_id, time, code, time_precision=precision, resource="Patient"))

    def at(self, minutes: float) -> datetime:
        """The time some minutes into the encounter, at most its end."""
        return min(self.start + timedelta(minutes=minutes), self.end)

    def rounds(self) -> Iterator[float]:
        """Minutes into a stay at which it is looked after: one day in, then every second day, before its end."""
        minutes = 1440.0
        while self.start + timedelta(minutes=minutes) < self.end:
            yield minutes
            minutes += 2880.0

    def open(self, kind: str, setting: str, start: datetime, end: datetime, disposition: str) -> None:
        """Begins an encounter; what is written next belongs to it."""
        self.start, self.end = start, end
        self._encounter = None
        event = self.write(kind, "Encounter", start, end_time=end, status="finished")
        self._encounter = event.event_id
        self.events[-1] = event = replace(event, encounter_id=event.event_id)
        self.detail(event, "class", f"ACTCODE//{setting}")
        if setting != "AMB":
            self.detail(event, "hospitalization.dischargeDisposition", f"DISCHARGE//{disposition}")

    def diagnose(self, code: str, resolved_after_days: float | None = None) -> None:
        """Writes an encounter diagnosis."""
        end = None if resolved_after_days is None else self._known(self.start + timedelta(days=resolved_after_days))
        event = self.write(code, "Condition", self.at(_DIAGNOSIS), end_time=end, status="confirmed")
        self.detail(event, "clinicalStatus", f"CONDCLINICAL//{'active' if end is None else 'resolved'}")
        self.detail(event, "category", "CONDCATEGORY//encounter-diagnosis")

    def list_problem(self, code: str, onset_age: float, abated_age: float | None = None) -> None:
        """Writes a problem-list item; one that began before belongs to no encounter."""
        onset, end = self.life.time_of(onset_age), None
        if abated_age is not None:
            end = self._known(self.life.time_of(abated_age))
        columns: dict[str, Any] = {"end_time": end, "status": "confirmed"}
        before = onset < self.start
        if before:
            midnight = onset.replace(hour=0, minute=0)
            event = self.write(code, "Condition", midnight, encounter_id=None, **columns | {"time_precision": "day"})
            self.detail(event, "recordedDate", text_value=self.start.date().isoformat())
        else:
            event = self.write(code, "Condition", self.at(_DIAGNOSIS), **columns)
        self.detail(event, "clinicalStatus", f"CONDCLINICAL//{'active' if end is None else 'resolved'}")
        self.detail(event, "category", "CONDCATEGORY//problem-list-item")
        self.problems[code] = event.event_id or ""

    def list_allergy(self, code: str) -> None:
        """Writes a known drug allergy."""
        event = self.write(code, "AllergyIntolerance", self.at(_DIAGNOSIS), status="confirmed")
        self.detail(event, "clinicalStatus", "ALLERGYCLINICAL//active")
        self.detail(event, "type", text_value="allergy")
        self.detail(event, "category", text_value="medication")
        self.detail(event, "criticality", text_value="low")

    def refute(self, code: str) -> None:
        """Writes a diagnosis that was suspected and ruled out."""
        event = self.write(NEGATED_PREFIX + code, "Condition", self.at(_TREATMENT), status="refuted")
        self.detail(event, "category", "CONDCATEGORY//encounter-diagnosis")

    def _known(self, time: datetime) -> datetime | None:
        """The time, if the record reaches it."""
        return time if self.life.in_record(self.life.age_of(time)) else None

    def observe(self, measured: Iterable[str], minutes: float | None = None) -> dict[str, float]:
        """Measures and writes some of `MEASURES`; returns the values by code."""
        values = {}
        for code in measured:
            measure = MEASURES[code]
            default = _VITALS if measure.category == "vital-signs" else _LABS
            time = self.at(default if minutes is None else minutes)
            values[code] = measure.read(self.life, self.life.age_of(time), self.rng)
            limits = measure.limits(self.life.person.sex)
            source = codes.OXYGEN_SATURATION_SOURCE if code == codes.OXYGEN_SATURATION else None
            self.report(code, values[code], measure.unit, time, limits=limits, category=measure.category, source=source)
        return values

    def report(
        self,
        code: str,
        value: float,
        unit: str,
        time: datetime,
        *,
        limits: Pair = (None, None),
        category: str = "laboratory",
        source: str | None = None,
    ) -> None:
        """Writes one numeric observation with category, interpretation and reference range."""
        event = self.write(
            code, "Observation", time, numeric_value=value, unit=unit, status="final", source_code=source
        )
        self.detail(event, "category", f"OBSCATEGORY//{category}")
        self._range(event, value, unit, limits)

    def _range(self, event: Event, value: float, unit: str, limits: Pair) -> None:
        low, high = limits
        if low is None and high is None:
            return
        self.detail(event, "interpretation", f"INTERPRETATION//{interpretation(value, low, high)}")
        if low is not None:
            self.detail(event, "referenceRange.low", numeric_value=low, unit=unit)
        if high is not None:
            self.detail(event, "referenceRange.high", numeric_value=high, unit=unit)

    def blood_pressure(self, minutes: float = _VITALS) -> None:
        """Writes the blood pressure panel 85354-9; diastolic stays 15 mm[Hg] below systolic at least."""
        time = self.at(minutes)
        age, person = self.life.age_of(time), self.life.person
        upper, lower = (MEASURES[code] for code in (codes.SYSTOLIC, codes.DIASTOLIC))
        systolic = upper.read(self.life, age, self.rng)
        diastolic = min(lower.read(self.life, age, self.rng), systolic - 15.0)
        panel = self.write(codes.PRESSURE, "Observation", time, status="final")
        self.detail(panel, "category", "OBSCATEGORY//vital-signs")
        for number, (code, value, measure) in enumerate(
            ((codes.SYSTOLIC, systolic, upper), (codes.DIASTOLIC, diastolic, lower)), start=1
        ):
            component = replace(
                panel,
                code=code,
                numeric_value=value,
                unit=measure.unit,
                event_id=f"{panel.event_id}.{number}",
                parent_id=panel.event_id,
            )
            self.events.append(component)
            self._range(component, value, measure.unit, measure.limits(person.sex))

    def vital_signs(self, minutes: float = _VITALS) -> None:
        """Writes blood pressure, heart and respiratory rate, temperature and oxygen saturation."""
        self.blood_pressure(minutes)
        self.observe((codes.HEART_RATE, codes.RESPIRATORY_RATE, codes.TEMPERATURE, codes.OXYGEN_SATURATION), minutes)

    def body_size(self, *, with_height: bool) -> None:
        """Writes weight and BMI, and height if asked."""
        height = round(self.life.person.height_cm, 1)
        time = self.at(_VITALS)
        if with_height:
            self.report(codes.HEIGHT, height, "cm", time, category="vital-signs")
        kilograms = self.observe([codes.WEIGHT])[codes.WEIGHT]
        bmi = round(kilograms / (height / 100.0) ** 2, 1)
        limits = (BMI_LOW, BMI_HIGH)
        self.report(codes.BMI, bmi, "kg/m2", time, limits=limits, category="vital-signs")

    def kidney_panel(self, minutes: float = _LABS) -> None:
        """Writes creatinine, the eGFR that CKD-EPI 2021 gives for it, and potassium."""
        time = self.at(minutes)
        value = self.observe([codes.CREATININE], minutes)[codes.CREATININE]
        age = float(int(self.life.age_of(time)))
        filtration = float(round(egfr_from_creatinine(value, age, self.life.person.sex)))
        self.report(codes.EGFR, filtration, "mL/min/{1.73_m2}", time, limits=(EGFR_LOW, None))
        self.observe([codes.POTASSIUM], minutes)

    def lipid_panel(self) -> None:
        """Writes LDL, HDL, triglycerides, and total cholesterol (Friedewald et al. 1972, Clin Chem 18:499)."""
        values = self.observe([codes.LDL, codes.HDL, codes.TRIGLYCERIDES])
        total = float(round(values[codes.LDL] + values[codes.HDL] + values[codes.TRIGLYCERIDES] / 5.0))
        self.report(codes.CHOLESTEROL, total, "mg/dL", self.at(_LABS), limits=(None, CHOLESTEROL_HIGH))

    def spirometry(self) -> None:
        """Writes the procedure, FEV1, FVC and their ratio in percent."""
        self.procedure(codes.SPIROMETRY, 5, 10)
        values = self.observe([codes.FEV1, codes.FVC], 15)
        ratio = round(100.0 * values[codes.FEV1] / values[codes.FVC], 1)
        limits = (FEV1_TO_FVC_LOW, None)
        self.report(codes.FEV1_TO_FVC, ratio, "%", self.at(15), limits=limits, category="procedure")

    def smoking_status(self) -> None:
        """Writes the smoking status, a coded value."""
        person = self.life.person
        status = {"never": codes.NEVER_SMOKER, "current": codes.CURRENT_SMOKER, "former": codes.FORMER_SMOKER}
        has_quit = person.smoking == "former" and self.age >= person.quit_age
        value = status["former" if has_quit else "never" if person.smoking == "never" else "current"]
        event = self.write(codes.SMOKING_STATUS, "Observation", self.at(_VITALS), text_value=value, status="final")
        self.detail(event, "category", "OBSCATEGORY//social-history")

    def start_drugs(self, problem: str) -> None:
        """Writes the first prescription of the long-term drugs for a problem that are due."""
        for drug, start in self.life.drugs.items():
            if REASONS[drug] == problem and start <= self.age:
                self.prescribe(drug, problem)

    def prescribe(self, drug: str, reason: str | None = None, days: float | None = None) -> None:
        """Writes a prescription; without `days` it is for a year, and is renewed."""
        dose = DOSES[drug]
        over = self.start + timedelta(days=days or 365.0) < self.life.laws.record.window_end
        status = "completed" if over else "active"
        event = self.write(drug, "MedicationRequest", self.at(_TREATMENT), status=status)
        self.detail(event, "intent", text_value="order")
        path = "dosageInstruction"
        self.detail(event, f"{path}.doseAndRate.doseQuantity", numeric_value=dose.amount, unit=dose.unit)
        self.detail(event, f"{path}.route", dose.route)
        self.detail(event, f"{path}.timing.repeat.frequency", numeric_value=float(dose.times_a_day))
        self.detail(event, f"{path}.timing.repeat.period", numeric_value=1.0, unit="d")
        if reason in self.problems:
            self.detail(event, "reasonReference", text_value=self.problems[reason])

    def procedure(self, code: str, minutes: float, duration_minutes: float, reason: str | None = None) -> None:
        """Writes a completed procedure."""
        end = self.at(minutes + duration_minutes)
        event = self.write(code, "Procedure", self.at(minutes), end_time=end, status="completed")
        if reason in self.problems:
            self.detail(event, "reasonReference", text_value=self.problems[reason])

    def immunize(self, vaccine: str) -> None:
        """Writes a vaccination, or that it was not done."""
        if self.chance(self.life.laws.record.not_done_immunization):
            self.write(NEGATED_PREFIX + vaccine, "Immunization", self.at(_TREATMENT), status="not-done")
        else:
            self.write(vaccine, "Immunization", self.at(_TREATMENT), status="completed")

    def image(self, modality: Modality, view: View | None, reason: str, minutes: float = _ORDER) -> None:
        """Orders a chest image and, unless the order is withdrawn, makes it: order, study, and the renderer's order."""
        code = codes.CHEST_RADIOGRAPH if modality == "CR" else codes.CHEST_CT
        withdrawn = self.chance(self.life.laws.record.revoked_order)
        status = "revoked" if withdrawn else "completed"
        prefix = NEGATED_PREFIX if withdrawn else ""
        request = self.write(prefix + code, "ServiceRequest", self.at(minutes), status=status)
        self.detail(request, "intent", text_value="order")
        self.detail(request, "category", codes.IMAGING)
        self.detail(request, "reasonCode", reason)
        if withdrawn:
            return
        time = self.at(minutes + _STUDY - _ORDER)
        order = self._image_order(modality, view, time)
        study = self.write(f"DCM//{modality}", "ImagingStudy", time, status="available")
        self.detail(study, "studyInstanceUID", text_value=order.study_uid)
        self.detail(study, "series", text_value=order.series_uid)
        self.detail(study, "series.modality", f"DCM//{modality}")
        self.detail(study, "series.numberOfInstances", numeric_value=float(NUM_IMAGES[modality]))
        self.detail(study, "series.bodySite", codes.CHEST)
        if view is not None:
            self.detail(study, "series.view", text_value=view)
        self.detail(study, "procedureCode", code)
        self.detail(study, "basedOn", text_value=request.event_id)
        self.detail(study, "reasonCode", reason)
        self.orders.append(order)
        report = self.write(
            codes.IMAGING_REPORT, "DiagnosticReport", self.at(minutes + _REPORT - _ORDER), status="final"
        )
        self.detail(report, "category", "V2DIAGNOSTICSERVICE//RAD")
        self.detail(report, "imagingStudy", text_value=study.event_id)
        for finding in order.labels or (codes.NORMAL,):
            self.detail(report, "conclusionCode", finding)

    def _image_order(self, modality: Modality, view: View | None, time: datetime) -> ImageOrder:
        person, age, number = self.life.person, self.life.age_of(time), len(self.orders)
        order = ImageOrder(
            index=person.index,
            subject_id=person.subject_id,
            time=time,
            modality=modality,
            view=view,
            study_uid=image_uid(self._seed, person.subject_id, "study", number),
            series_uid=image_uid(self._seed, person.subject_id, "series", number),
            sex=person.sex,
            age_years=age,
            bmi=person.bmi,
            heart_failure=self.life.severity_of_heart_failure(age),
            copd=age >= self.life.copd,
            pneumonia=self.life.acute_strength("pneumonia", age) > 0.0,
        )
        return with_labels(order, self._seed)
