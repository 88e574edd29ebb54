import assert from 'node:assert/strict';
import { redactUrls } from './redact.js';

describe('redactUrls', () => {
  const cases: Readonly<Record<string, string>> = {
    'plain text, 100% fine?': 'plain text, 100% fine?',
    'GET https://host/v2/: 500': 'GET https://host/v2/: 500',
    'GET https://host/v2/a?sig=1&x=2: 500': 'GET https://host/v2/a?redacted: 500',
    'GET "https://u:p@host:5000/x?t=1" (https://u@h)':
      'GET "https://redacted@host:5000/x?redacted" (https://redacted@h)',
    'docker://user:p%40ss@host/x#f': 'docker://redacted@host/x#f',
    'https://host/a@sha256:00 ok': 'https://host/a@sha256:00 ok',
  };
  for (const [text, expected] of Object.entries(cases)) {
    it(text, () => assert.equal(redactUrls(text), expected));
  }
});
