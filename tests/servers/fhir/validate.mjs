// Strict validation of NDJSON: node validate.mjs [--ig DIR]... [--entries] < resources.ndjson
// Prints a line {"line", "type", "id", "issues": [...]} for each resource that is not valid, and a summary at the end.
// --ig adds the profiles of an unpacked package (its folder `package`); --entries looks at each entry of bundles.
import { createInterface } from 'node:readline';
import { loadDefinitions } from './definitions.mjs';
import { Validator } from './validator.mjs';

const guides = process.argv.flatMap((argument, at) => (argument === '--ig' ? [process.argv[at + 1]] : []));
const byEntry = process.argv.includes('--entries');
const definitions = loadDefinitions({ guides });
const validator = new Validator(definitions);
const profiles = new Map(); // profile -> how many resources declare it, and whether it is known
let [resources, invalid, line] = [0, 0, 0];
const started = performance.now();

for await (const text of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  line += 1;
  if (!text.trim()) continue;
  const document = JSON.parse(text);
  const each =
    byEntry && document.resourceType === 'Bundle' ? document.entry.map((entry) => entry.resource) : [document];
  for (const resource of each) {
    resources += 1;
    for (const url of resource.meta?.profile ?? []) profiles.set(url, (profiles.get(url) ?? 0) + 1);
    const issues = validator.check(resource);
    if (!issues.length) continue;
    invalid += 1;
    const { resourceType: type, id } = resource;
    const short = issues.map(({ code, details, expression, diagnostics }) => ({
      code,
      text: details?.text,
      at: expression?.[0],
      profile: diagnostics,
    }));
    process.stdout.write(`${JSON.stringify({ line, type, id, issues: short })}\n`);
  }
}

const declared = Object.fromEntries(
  [...profiles].map(([url, count]) => [url, { count, known: definitions.profiles.has(url.split('|')[0]) }]),
);
const perSecond = Math.round((1000 * resources) / (performance.now() - started));
const unevaluated = Object.fromEntries(validator.unevaluated); // invariants, with the reason
const summary = { resources, invalid, perSecond, profiles: declared, unevaluated };
process.stdout.write(`${JSON.stringify({ summary })}\n`);
