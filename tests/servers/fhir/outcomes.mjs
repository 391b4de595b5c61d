// Answers that say what is wrong: OperationOutcomes with their HTTP status.
import { core } from './medplum.mjs';

export function outcomeOf(code, text, { severity = 'error', expression } = {}) {
  return {
    resourceType: 'OperationOutcome',
    issue: [{ severity, code, details: { text }, ...(expression && { expression: [expression] }) }],
  };
}

/** An answer other than success, thrown from anywhere. */
export class Refusal extends Error {
  constructor(status, code, text, { expression, headers = {}, outcome } = {}) {
    super(text);
    this.status = status;
    this.headers = headers;
    this.outcome = outcome ?? outcomeOf(code, text, { expression });
  }
}

/** The same error as a Refusal, whatever raised it. */
export function asRefusal(error) {
  if (error instanceof Refusal) return error;
  if (error instanceof core.OperationOutcomeError) {
    return new Refusal(core.getStatus(error.outcome), '', error.message, { outcome: withoutId(error.outcome) });
  }
  return new Refusal(500, 'exception', String(error?.message ?? error));
}

export function withoutId({ id, ...outcome }) {
  return outcome;
}
