/** Skips what follows in this test or, from a hook, in its suite; the reason stands in the output beside it. */
export function skip(context: Mocha.Context, reason: string): never {
  console.log(`      skipped: ${reason}`);
  return context.skip();
}
