// Which codes a value set or a code system holds, as far as the packages list them.

const PATTERNS = {
  'http://hl7.org/fhir/ValueSet/mimetypes': /^[a-z0-9][a-z0-9!#$&^_.+-]*\/[a-z0-9!#$&^_.+*-]+(;.*)?$/i,
  'http://hl7.org/fhir/ValueSet/all-languages': /^[a-zA-Z]{2,8}(-[a-zA-Z0-9]{1,8})*$/,
};

export class Terminology {
  #members = new Map(); // value set url -> (system, code) => true | false | undefined where it cannot be told
  #codes = new Map(); // code system url -> {codes, parents, isComplete}

  constructor(definitions) {
    this.definitions = definitions;
  }

  /** Whether a code system has a code: true, false, or undefined where its content is not at hand. */
  has(system, code) {
    const known = this.#system(system);
    return known?.isComplete ? known.codes.has(code) : undefined;
  }

  /** Whether a value set has a code; `system` is undefined for the FHIR type code. */
  contains(valueSet, system, code) {
    const url = valueSet.split('|')[0];
    if (!this.#members.has(url)) {
      this.#members.set(url, () => undefined); // a value set that includes itself
      this.#members.set(url, this.#build(url));
    }
    return this.#members.get(url)(system, code);
  }

  #build(url) {
    if (PATTERNS[url]) return (_system, code) => PATTERNS[url].test(code);
    const compose = this.definitions.valueSets.get(url)?.compose;
    if (!compose) return () => undefined;
    const includes = compose.include.map((include) => this.#include(include));
    const excludes = (compose.exclude ?? []).map((exclude) => this.#include(exclude));
    return (system, code) => {
      if (excludes.some((test) => test(system, code) === true)) return false;
      const answers = includes.map((test) => test(system, code));
      if (answers.includes(true)) return true;
      return answers.includes(undefined) ? undefined : false;
    };
  }

  #include({ system, concept, filter = [], valueSet = [] }) {
    const tests = valueSet.map((url) => (given, code) => this.contains(url, given, code));
    if (system) tests.push(this.#ofSystem(system, concept, filter));
    return (given, code) => {
      const answers = tests.map((test) => test(given, code));
      if (answers.includes(false)) return false;
      return answers.includes(undefined) ? undefined : true;
    };
  }

  #ofSystem(system, concept, filter) {
    const isOther = (given) => given !== undefined && given !== system;
    if (concept) {
      const codes = new Set(concept.map((each) => each.code));
      return (given, code) => !isOther(given) && codes.has(code);
    }
    if (system === 'urn:iso:std:iso:4217') {
      const codes = new Set(Intl.supportedValuesOf('currency'));
      return (given, code) => !isOther(given) && codes.has(code);
    }
    const known = this.#system(system);
    if (!known?.isComplete) return (given) => (isOther(given) ? false : undefined);
    const tests = filter.map((each) => filterTest(each, known));
    return (given, code) => {
      if (isOther(given) || !known.codes.has(code)) return false;
      const answers = tests.map((test) => test(code));
      if (answers.includes(false)) return false;
      return answers.includes(undefined) ? undefined : true;
    };
  }

  #system(url) {
    if (!this.#codes.has(url)) {
      const found = this.definitions.codeSystems.get(url);
      this.#codes.set(url, found && readSystem(found));
    }
    return this.#codes.get(url);
  }
}

function readSystem({ concept, content }) {
  const codes = new Set();
  const parents = new Map(); // code -> its parents, by nesting and by the property subsumedBy of v3 systems
  const walk = (list, parent) => {
    for (const each of list ?? []) {
      codes.add(each.code);
      const above = (each.property ?? []).filter((one) => one.code === 'subsumedBy').map((one) => one.valueCode);
      parents.set(each.code, [...(parents.get(each.code) ?? []), ...(parent ? [parent] : []), ...above]);
      walk(each.concept, each.code);
    }
  };
  walk(concept);
  return { codes, parents, isComplete: content === 'complete' };
}

function filterTest({ property, op, value }, { parents }) {
  if (property === 'concept' && (op === 'is-a' || op === 'descendent-of')) {
    return (code) => (op === 'is-a' && code === value) || isBelow(code, value, parents);
  }
  if (property === 'concept' && op === 'is-not-a') return (code) => code !== value && !isBelow(code, value, parents);
  return () => undefined;
}

function isBelow(code, value, parents, seen = new Set()) {
  if (seen.has(code)) return false;
  seen.add(code);
  return (parents.get(code) ?? []).some((parent) => parent === value || isBelow(parent, value, parents, seen));
}
