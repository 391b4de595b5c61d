// Says of each line {"profile": url, "resource": {...}} of NDJSON whether Medplum's validator accepts the resource as being
// of the profile: {"ok": true} or {"ok": false, "issues": [...]}. Profiles and value sets come from the folder that is named,
// the types of R4 from the official package.
import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { core, coreFolder } from '../servers/fhir/medplum.mjs';

function* definitions(folder) {
  for (const name of readdirSync(folder)) {
    if (/^(StructureDefinition|ValueSet)-.*\.json$/.test(name)) yield JSON.parse(readFileSync(path.join(folder, name), 'utf8'));
  }
}

const types = [...definitions(coreFolder)].filter((each) => each.snapshot && each.kind !== 'logical' && each.derivation !== 'constraint');
core.indexStructureDefinitionBundle(types);
const profiles = new Map();
const valueSets = new Map();
for (const each of definitions(process.argv[2])) (each.resourceType === 'ValueSet' ? valueSets : profiles).set(each.url, each);

// A code is in a value set if one of its lists has it; a system without a list has every code.
function isIn(valueSet, { type, value }) {
  const has = (system, code) => valueSet.compose.include.some(
    (include) => (include.system === system || type === 'code') && (!include.concept || include.concept.some((each) => each.code === code)));
  if (type === 'CodeableConcept') return (value.coding ?? []).some((each) => has(each.system, each.code));
  return type === 'Coding' ? has(value.system, value.code) : has(undefined, String(value));
}

function check({ profile, resource }) {
  if (!profiles.has(profile)) throw new Error(`no definition of ${profile} in ${process.argv[2]}`);
  const collect = { tokens: {} };
  let issues;
  try { issues = core.validateResource(resource, { profile: profiles.get(profile), collect }); } catch (error) {
    if (!error.outcome) throw error;
    issues = error.outcome.issue;
  }
  // Medplum only warns of a reference to a wrong type.
  const wrong = issues.filter((issue) => issue.severity === 'error' || issue.details?.text?.startsWith('Invalid reference'));
  const found = wrong.map((issue) => issue.details?.text ?? issue.diagnostics);
  for (const [url, tokens] of Object.entries(collect.tokens)) {
    const valueSet = valueSets.get(url);
    for (const token of valueSet ? tokens : []) if (!isIn(valueSet, token)) found.push(`not in ${url}`);
  }
  return { ok: found.length === 0, issues: found };
}

for await (const line of createInterface({ input: process.stdin })) process.stdout.write(`${JSON.stringify(check(JSON.parse(line)))}\n`);
