// The vital-sign profiles of R4: an observation with one of their LOINC codes keeps the rules of that profile
// (observation-vitalsigns.html). @medplum/core does not look inside the slices of value[x] and component, and reads a
// profile anew for each resource; this looks at what the profiles ask beyond Observation, and reads them once.

const VITALS = 'http://hl7.org/fhir/StructureDefinition/vitalsigns';
const LOINC = 'http://loinc.org';

const CATEGORY = 'http://terminology.hl7.org/CodeSystem/observation-category|vital-signs';
const hasValue = (holder) => Object.keys(holder).some((key) => key.startsWith('value'));
const RULES = {
  'vs-1': (resource) => !resource.effectiveDateTime || resource.effectiveDateTime.length >= 10,
  'vs-2': (resource) =>
    Boolean(resource.component ?? resource.hasMember ?? resource.dataAbsentReason) || hasValue(resource),
  'vs-3': (resource) => [resource.component ?? []].flat().every((each) => each.dataAbsentReason || hasValue(each)),
};

export class Vitals {
  #byCode = new Map(); // LOINC code -> profile
  #elementsOf = new Map(); // url of a profile -> its elements by id

  constructor(definitions, terminology) {
    this.terminology = terminology;
    for (const profile of definitions.profiles.values()) {
      if (profile.baseDefinition !== VITALS || !profile.url.startsWith('http://hl7.org/fhir/StructureDefinition/'))
        continue;
      for (const { id, fixedCode } of profile.snapshot.element) {
        if (fixedCode && /^Observation\.code\.coding:[^.]+\.code$/.test(id)) this.#byCode.set(fixedCode, profile);
      }
    }
  }

  /** The profiles that the codes of an observation call for. */
  profilesOf(resource) {
    if (resource.resourceType !== 'Observation') return [];
    const codings = [resource.code?.coding ?? []].flat().filter((coding) => coding?.system === LOINC);
    return [...new Set(codings.map((coding) => this.#byCode.get(coding.code)).filter(Boolean))];
  }

  #elements(profile) {
    if (!this.#elementsOf.has(profile.url)) {
      this.#elementsOf.set(profile.url, new Map(profile.snapshot.element.map((element) => [element.id, element])));
    }
    return this.#elementsOf.get(profile.url);
  }

  /** What the profile says of the whole, of value[x] and of the components, that the resource does not keep. */
  faults(profile, resource) {
    const elements = this.#elements(profile);
    const faults = [...this.#value('Observation.value[x]', elements, resource), ...this.#whole(elements, resource)];
    for (const [id, { min }] of elements) {
      if (!/^Observation\.component:[^.]+$/.test(id)) continue;
      const codes = fixedCodes(id, elements);
      const matches = [resource.component ?? []].flat().filter((component) => hasCode(component, codes));
      if (matches.length < min) faults.push(`no component ${codes.join('|')}`);
      faults.push(...matches.flatMap((component) => this.#value(`${id}.value[x]`, elements, component)));
    }
    return faults;
  }

  #whole(elements, resource) {
    const faults = [];
    for (const [id, { min, max }] of elements) {
      const name = /^Observation\.([a-z]+)(\[x\])?$/i.exec(id);
      if (!name) continue;
      const isThere = name[2]
        ? Object.keys(resource).some((key) => key.startsWith(name[1]))
        : resource[name[1]] !== undefined;
      if (min > 0 && !isThere) faults.push(`${name[1]} is missing`);
      if (max === '0' && isThere) faults.push(`no ${name[1]} here`);
    }
    const effective = Object.keys(resource).find((key) => key.startsWith('effective'));
    if (effective && !['effectiveDateTime', 'effectivePeriod'].includes(effective))
      faults.push('effective[x] is a dateTime or a Period');
    if (!codesOf(resource.category).includes(CATEGORY)) faults.push('category vital-signs is missing');
    for (const { key, severity, expression } of [...elements.values()].flatMap((element) =>
      element.id.split('.').length < 3 ? (element.constraint ?? []) : [],
    )) {
      if (severity === 'error' && RULES[key] && !RULES[key](resource)) faults.push(`${key}: ${expression}`);
    }
    return faults;
  }

  #value(id, elements, holder) {
    const given = Object.keys(holder).find((key) => key.startsWith('value'));
    if (!given) return [];
    const types = elements.get(id).type.map(({ code }) => `value${code[0].toUpperCase()}${code.slice(1)}`);
    if (!types.includes(given)) return [`${given} is no type of this value`];
    const slice = elements.has(`${id}:${given}`) ? `${id}:${given}` : id;
    if (elements.get(slice).max === '0') return [`no ${given} here`];
    return ['value', 'unit', 'system', 'code'].flatMap((part) =>
      this.#part(elements.get(`${slice}.${part}`), holder[given]?.[part]),
    );
  }

  #part(element, given) {
    if (!element) return [];
    if (given === undefined) return element.min > 0 ? [`${element.path} is missing`] : [];
    const fixed = element.fixedCode ?? element.fixedUri ?? element.fixedString;
    if (fixed !== undefined && given !== fixed) return [`${element.path} is not ${fixed}`];
    const { strength, valueSet } = element.binding ?? {};
    const isOutside = strength === 'required' && this.terminology.contains(valueSet, undefined, given) === false;
    return isOutside ? [`${element.path} is not in ${valueSet}`] : [];
  }
}

function fixedCodes(id, elements) {
  return [...elements]
    .filter(([key, { fixedCode }]) => fixedCode && key.startsWith(`${id}.code.coding`))
    .map(([, { fixedCode }]) => fixedCode);
}

function hasCode(component, codes) {
  return [component?.code?.coding ?? []].flat().some((coding) => codes.includes(coding?.code));
}

function codesOf(concepts) {
  return [concepts ?? []]
    .flat()
    .flatMap((concept) => [concept?.coding ?? []].flat().map(({ system, code }) => `${system}|${code}`));
}
