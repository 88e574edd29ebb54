/** One thing looked at on the host. `missing` stands in the way of something that `about` names. */
export interface Finding {
  readonly level: 'ok' | 'note' | 'missing';
  readonly what: string;
  readonly about: string;
}

export const ok = (what: string, about: string): Finding => ({ level: 'ok', what, about });
export const note = (what: string, about: string): Finding => ({ level: 'note', what, about });
export const missing = (what: string, about: string): Finding => ({ level: 'missing', what, about });
