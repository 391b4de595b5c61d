"""The codes that the hospital uses, and what they mean in English.

RxNorm codes are clinical drugs (SCD). Codes were compared with Synthea's and HL7's published examples.
"""

from __future__ import annotations

# Conditions and findings, SNOMED CT.
HYPERTENSION = "SNOMED//59621000"
DIABETES = "SNOMED//44054006"
CKD_3 = "SNOMED//433144002"
CKD_4 = "SNOMED//431857002"
CKD_5 = "SNOMED//433146000"
ANEMIA = "SNOMED//271737000"
HEART_FAILURE = "SNOMED//84114007"
COPD = "SNOMED//13645005"
COPD_EXACERBATION = "SNOMED//195951007"
PNEUMONIA = "SNOMED//385093006"
ACUTE_BRONCHITIS = "SNOMED//10509002"
BREAST_CANCER = "SNOMED//254837009"
PREGNANCY = "SNOMED//72892002"
GESTATIONAL_DIABETES = "SNOMED//11687002"
KNEE_OSTEOARTHRITIS = "SNOMED//239873007"
HYPERLIPIDEMIA = "SNOMED//55822004"
PENICILLIN_ALLERGY = "SNOMED//91936005"
CHEST_PAIN = "SNOMED//29857009"
CARDIOMEGALY = "SNOMED//8186001"
PULMONARY_EDEMA = "SNOMED//19242006"
PLEURAL_EFFUSION = "SNOMED//60046008"
CONSOLIDATION = "SNOMED//95436008"
EMPHYSEMA = "SNOMED//87433001"
NORMAL = "SNOMED//17621005"
NEVER_SMOKER = "SNOMED//266919005"
FORMER_SMOKER = "SNOMED//8517006"
CURRENT_SMOKER = "SNOMED//449868002"

# Encounters and procedures, SNOMED CT.
CHECK_UP = "SNOMED//185349003"
PROBLEM_VISIT = "SNOMED//185347001"
FOLLOW_UP = "SNOMED//390906007"
EMERGENCY = "SNOMED//50849002"
ADMISSION = "SNOMED//32485007"
PRENATAL_VISIT = "SNOMED//424619006"
POSTNATAL_VISIT = "SNOMED//169762003"
CHEST_RADIOGRAPH = "SNOMED//399208008"
CHEST_CT = "SNOMED//169069000"
SPIROMETRY = "SNOMED//127783003"
ECHOCARDIOGRAPHY = "SNOMED//40701008"
KNEE_REPLACEMENT = "SNOMED//609588000"
VAGINAL_DELIVERY = "SNOMED//177184002"
CESAREAN = "SNOMED//11466000"
MAMMOGRAPHY = "SNOMED//71651007"
BREAST_BIOPSY = "SNOMED//122548005"
LUMPECTOMY = "SNOMED//392021009"
IMAGING = "SNOMED//363679005"
CHEST = "SNOMED//51185008"
ORAL = "SNOMED//26643006"
INHALED = "SNOMED//447694001"
SUBCUTANEOUS = "SNOMED//34206005"

# Observations, LOINC.
PRESSURE = "LOINC//85354-9"
SYSTOLIC = "LOINC//8480-6"
DIASTOLIC = "LOINC//8462-4"
HEART_RATE = "LOINC//8867-4"
RESPIRATORY_RATE = "LOINC//9279-1"
TEMPERATURE = "LOINC//8310-5"
OXYGEN_SATURATION = "LOINC//2708-6"
OXYGEN_SATURATION_SOURCE = "LOINC//2708-6 | LOINC//59408-5"
HEIGHT = "LOINC//8302-2"
WEIGHT = "LOINC//29463-7"
BMI = "LOINC//39156-5"
SMOKING_STATUS = "LOINC//72166-2"
A1C = "LOINC//4548-4"
GLUCOSE = "LOINC//2345-7"
CREATININE = "LOINC//2160-0"
EGFR = "LOINC//98979-8"
POTASSIUM = "LOINC//2823-3"
SODIUM = "LOINC//2951-2"
HEMOGLOBIN = "LOINC//718-7"
LEUKOCYTES = "LOINC//6690-2"
CRP = "LOINC//1988-5"
NT_PROBNP = "LOINC//33762-6"
CHOLESTEROL = "LOINC//2093-3"
LDL = "LOINC//13457-7"
HDL = "LOINC//2085-9"
TRIGLYCERIDES = "LOINC//2571-8"
FEV1 = "LOINC//20150-9"
FVC = "LOINC//19868-9"
FEV1_TO_FVC = "LOINC//19926-5"
EJECTION_FRACTION = "LOINC//10230-1"

IMAGING_REPORT = "LOINC//18748-4"

# Drugs, RxNorm.
METFORMIN = "RXNORM//861007"
GLARGINE = "RXNORM//311041"
LISINOPRIL = "RXNORM//314076"
AMLODIPINE = "RXNORM//197361"
ATORVASTATIN = "RXNORM//617310"
FUROSEMIDE = "RXNORM//313988"
CARVEDILOL = "RXNORM//200031"
ALBUTEROL = "RXNORM//745679"
FLUTICASONE_SALMETEROL = "RXNORM//896209"
PREDNISONE = "RXNORM//312615"
AMOXICILLIN = "RXNORM//308191"
AZITHROMYCIN = "RXNORM//308460"
LEVOFLOXACIN = "RXNORM//199885"
ANASTROZOLE = "RXNORM//199224"
TAMOXIFEN = "RXNORM//313195"
FERROUS_SULFATE = "RXNORM//310325"
NAPROXEN = "RXNORM//198014"
ACETAMINOPHEN = "RXNORM//198440"

# Vaccines, CVX.
INFLUENZA = "CVX//150"
PNEUMOCOCCAL_CONJUGATE = "CVX//133"
PNEUMOCOCCAL_POLYSACCHARIDE = "CVX//33"
COVID_19 = "CVX//208"
TETANUS = "CVX//113"
TDAP = "CVX//115"

DESCRIPTIONS: dict[str, str] = {
    HYPERTENSION: "Essential hypertension (disorder)",
    DIABETES: "Diabetes mellitus type 2 (disorder)",
    CKD_3: "Chronic kidney disease stage 3 (disorder)",
    CKD_4: "Chronic kidney disease stage 4 (disorder)",
    CKD_5: "Chronic kidney disease stage 5 (disorder)",
    ANEMIA: "Anemia (disorder)",
    HEART_FAILURE: "Heart failure (disorder)",
    COPD: "Chronic obstructive lung disease (disorder)",
    COPD_EXACERBATION: "Acute exacerbation of chronic obstructive airways disease (disorder)",
    PNEUMONIA: "Community acquired pneumonia (disorder)",
    ACUTE_BRONCHITIS: "Acute bronchitis (disorder)",
    BREAST_CANCER: "Malignant neoplasm of breast (disorder)",
    PREGNANCY: "Normal pregnancy (finding)",
    GESTATIONAL_DIABETES: "Gestational diabetes mellitus (disorder)",
    KNEE_OSTEOARTHRITIS: "Osteoarthritis of knee (disorder)",
    HYPERLIPIDEMIA: "Hyperlipidemia (disorder)",
    PENICILLIN_ALLERGY: "Allergy to penicillin (finding)",
    CHEST_PAIN: "Chest pain (finding)",
    CARDIOMEGALY: "Cardiomegaly (disorder)",
    PULMONARY_EDEMA: "Pulmonary edema (disorder)",
    PLEURAL_EFFUSION: "Pleural effusion (disorder)",
    CONSOLIDATION: "Lung consolidation (disorder)",
    EMPHYSEMA: "Pulmonary emphysema (disorder)",
    NORMAL: "Normal (qualifier value)",
    NEVER_SMOKER: "Never smoked tobacco (finding)",
    FORMER_SMOKER: "Ex-smoker (finding)",
    CURRENT_SMOKER: "Smokes tobacco daily (finding)",
    CHECK_UP: "Encounter for check up (procedure)",
    PROBLEM_VISIT: "Encounter for problem (procedure)",
    FOLLOW_UP: "Follow-up encounter (procedure)",
    EMERGENCY: "Emergency room admission (procedure)",
    ADMISSION: "Hospital admission (procedure)",
    PRENATAL_VISIT: "Prenatal visit (regime/therapy)",
    POSTNATAL_VISIT: "Postnatal visit (regime/therapy)",
    CHEST_RADIOGRAPH: "Plain chest X-ray (procedure)",
    CHEST_CT: "Computed tomography of chest (procedure)",
    SPIROMETRY: "Spirometry (procedure)",
    ECHOCARDIOGRAPHY: "Echocardiography (procedure)",
    KNEE_REPLACEMENT: "Total knee replacement (procedure)",
    VAGINAL_DELIVERY: "Normal delivery procedure (procedure)",
    CESAREAN: "Cesarean section (procedure)",
    MAMMOGRAPHY: "Mammography (procedure)",
    BREAST_BIOPSY: "Biopsy of breast (procedure)",
    LUMPECTOMY: "Lumpectomy of breast (procedure)",
    IMAGING: "Imaging (procedure)",
    CHEST: "Thoracic structure (body structure)",
    ORAL: "Oral route (qualifier value)",
    INHALED: "Respiratory tract route (qualifier value)",
    SUBCUTANEOUS: "Subcutaneous route (qualifier value)",
    PRESSURE: "Blood pressure panel with all children optional",
    SYSTOLIC: "Systolic blood pressure",
    DIASTOLIC: "Diastolic blood pressure",
    HEART_RATE: "Heart rate",
    RESPIRATORY_RATE: "Respiratory rate",
    TEMPERATURE: "Body temperature",
    OXYGEN_SATURATION: "Oxygen saturation in Arterial blood",
    HEIGHT: "Body height",
    WEIGHT: "Body weight",
    BMI: "Body mass index (BMI) [Ratio]",
    SMOKING_STATUS: "Tobacco smoking status",
    A1C: "Hemoglobin A1c/Hemoglobin.total in Blood",
    GLUCOSE: "Glucose [Mass/volume] in Serum or Plasma",
    CREATININE: "Creatinine [Mass/volume] in Serum or Plasma",
    EGFR: "Glomerular filtration rate [Volume Rate/Area] by Creatinine-based formula (CKD-EPI 2021)/1.73 sq M",
    POTASSIUM: "Potassium [Moles/volume] in Serum or Plasma",
    SODIUM: "Sodium [Moles/volume] in Serum or Plasma",
    HEMOGLOBIN: "Hemoglobin [Mass/volume] in Blood",
    LEUKOCYTES: "Leukocytes [#/volume] in Blood by Automated count",
    CRP: "C reactive protein [Mass/volume] in Serum or Plasma",
    NT_PROBNP: "Natriuretic peptide.B prohormone N-Terminal [Mass/volume] in Serum or Plasma",
    CHOLESTEROL: "Cholesterol [Mass/volume] in Serum or Plasma",
    LDL: "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation",
    HDL: "Cholesterol in HDL [Mass/volume] in Serum or Plasma",
    TRIGLYCERIDES: "Triglyceride [Mass/volume] in Serum or Plasma",
    FEV1: "FEV1",
    FVC: "Forced vital capacity [Volume] Respiratory system by Spirometry",
    FEV1_TO_FVC: "FEV1/FVC",
    EJECTION_FRACTION: "Left ventricular Ejection fraction",
    IMAGING_REPORT: "Diagnostic imaging study",
    METFORMIN: "metformin hydrochloride 500 MG Oral Tablet",
    GLARGINE: "insulin glargine 100 UNT/ML Injectable Solution",
    LISINOPRIL: "lisinopril 10 MG Oral Tablet",
    AMLODIPINE: "amlodipine 5 MG Oral Tablet",
    ATORVASTATIN: "atorvastatin 20 MG Oral Tablet",
    FUROSEMIDE: "furosemide 40 MG Oral Tablet",
    CARVEDILOL: "carvedilol 6.25 MG Oral Tablet",
    ALBUTEROL: "200 ACTUAT albuterol 0.09 MG/ACTUAT Metered Dose Inhaler",
    FLUTICASONE_SALMETEROL: (
        "60 ACTUAT fluticasone propionate 0.25 MG/ACTUAT / salmeterol 0.05 MG/ACTUAT Dry Powder Inhaler"
    ),
    PREDNISONE: "prednisone 20 MG Oral Tablet",
    AMOXICILLIN: "amoxicillin 500 MG Oral Capsule",
    AZITHROMYCIN: "azithromycin 250 MG Oral Tablet",
    LEVOFLOXACIN: "levofloxacin 500 MG Oral Tablet",
    ANASTROZOLE: "anastrozole 1 MG Oral Tablet",
    TAMOXIFEN: "tamoxifen 20 MG Oral Tablet",
    FERROUS_SULFATE: "ferrous sulfate 325 MG Oral Tablet",
    NAPROXEN: "naproxen 500 MG Oral Tablet",
    ACETAMINOPHEN: "acetaminophen 500 MG Oral Tablet",
    INFLUENZA: "influenza, injectable, quadrivalent, preservative free",
    PNEUMOCOCCAL_CONJUGATE: "pneumococcal conjugate PCV 13",
    PNEUMOCOCCAL_POLYSACCHARIDE: "pneumococcal polysaccharide PPV23",
    COVID_19: "COVID-19, mRNA, LNP-S, PF, 30 mcg/0.3 mL dose",
    TETANUS: "Td (adult), 5 Lf tetanus toxoid, preservative free, adsorbed",
    TDAP: "Tdap",
    "DCM//CR": "Computed Radiography",
    "DCM//CT": "Computed Tomography",
}
"""Code to English description, for metadata/codes.parquet."""
