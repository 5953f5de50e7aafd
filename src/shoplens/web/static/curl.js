/** The cURL command for a photo, quoted so that it is safe to paste for any file name. `keyed`: it needs an API key. */

const PLAIN_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069]/g;

export function curlCommand(fileName, channel, { keyed = false, origin = location.origin } = {}) {
  const address = `${origin}/predict?channel=${encodeURIComponent(channel)}`;
  return `curl${keyed ? ' -H "Authorization: Bearer $SHOPLENS_KEY"' : ""} -F ${fileArgument(fileName)} ${shellQuoted(address)}`;
}

/** cURL gives ; , and " a meaning in form values, so such names are quoted for cURL and then for the shell. */
function fileArgument(fileName) {
  if (PLAIN_NAME.test(fileName)) return `file=@${fileName}`;
  const name = `./${fileName.replace(CONTROL, "?")}`.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
  return shellQuoted(`file=@"${name}"`);
}

function shellQuoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
