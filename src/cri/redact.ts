/**
 * Takes what may be a secret out of URLs in a text meant for people: user info and query strings. Registries hand out
 * signed URLs, HTTP clients put them into their errors, and the kubelet copies our errors into events.
 */
export function redactUrls(text: string): string {
  if (!text.includes('://')) return text;
  return text.replace(
    urlWithSecrets,
    (_all, scheme: string, user: string | undefined, rest: string, query?: string) => {
      const hiddenUser = user === undefined ? '' : 'redacted@';
      return `${scheme}${hiddenUser}${rest}${query === undefined ? '' : '?redacted'}`;
    },
  );
}

const urlWithSecrets = /([a-z][a-z0-9+.-]*:\/\/)([^\s/?#@"']*@)?([^\s?#"']*)(\?[^\s"']*[^\s"'.,:;)])?/gi;
