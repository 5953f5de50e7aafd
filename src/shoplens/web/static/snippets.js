/** The request for a photo in three languages, quoted so that it is safe to paste for any file name. `keyed`: it needs an
 * API key. */

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

/** JSON is a literal of Python and of JavaScript, too; control characters become escapes. */
function literal(text) {
  return JSON.stringify(text).replace(CONTROL, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function pythonSnippet(fileName, channel, { keyed = false, origin = location.origin } = {}) {
  return [
    ...(keyed ? ["import os", ""] : []),
    "import httpx",
    "",
    `with open(${literal(fileName)}, "rb") as photo:`,
    "    answer = httpx.post(",
    `        ${literal(`${origin}/predict`)},`,
    `        params={"channel": ${literal(channel)}},`,
    ...(keyed ? ['        headers={"Authorization": f"Bearer {os.environ[\'SHOPLENS_KEY\']}"},'] : []),
    '        files={"file": photo},',
    "        timeout=60,",
    "    )",
    'best = answer.raise_for_status().json()["labels"][0]',
    'print(best["label"], best["score"])',
  ].join("\n");
}

/** For Node.js 20 and later, as a module. */
export function scriptSnippet(fileName, channel, { keyed = false, origin = location.origin } = {}) {
  return [
    'import { openAsBlob } from "node:fs";',
    "",
    "const form = new FormData();",
    `form.append("file", await openAsBlob(${literal(fileName)}), ${literal(fileName)});`,
    `const answer = await fetch(${literal(`${origin}/predict?channel=${encodeURIComponent(channel)}`)}, {`,
    '  method: "POST",',
    "  body: form,",
    ...(keyed ? ["  headers: { Authorization: `Bearer ${process.env.SHOPLENS_KEY}` },"] : []),
    "});",
    "if (!answer.ok) throw new Error((await answer.json()).detail);",
    "const [best] = (await answer.json()).labels;",
    "console.log(best.label, best.score);",
  ].join("\n");
}
