// Plain HTTPS, for what the library leaves to the app: linking, uploads, downloads.

import { request } from 'node:https';

import { SHORT_MS } from './wait.mjs';

/** Begins a request to this node, whose body the caller writes. `target` is a path or an address of the node. */
export function begin(node, method, target, headers = {}) {
  const { port, certificate } = node.server;
  const { pathname, search } = new URL(target, node.address);
  return request({
    method,
    path: pathname + search,
    headers,
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ca: certificate.toString(),
    agent: false,
    timeout: SHORT_MS,
  });
}

/** One request and its whole answer. */
export function ask(node, method, target, { headers = {}, body } = {}) {
  const bytes = body === undefined ? Buffer.alloc(0) : Buffer.from(body);
  const request = begin(node, method, target, { ...headers, 'content-length': bytes.length });
  const answer = answered(request);
  request.end(bytes);
  return answer;
}

/** One request with a JSON body, and the JSON of its answer if it has any. */
export async function askJson(node, method, target, { headers = {}, json } = {}) {
  const { status, headers: got, body } = await ask(node, method, target, {
    headers: json === undefined ? headers : { ...headers, 'content-type': 'application/json' },
    body: json === undefined ? undefined : JSON.stringify(json),
  });
  return { status, headers: got, json: body.length > 0 ? JSON.parse(body) : null };
}

/** The answer to a request that was begun. */
export function answered(request) {
  return new Promise((resolve, reject) => {
    request.on('timeout', () => request.destroy(new Error(`no answer to ${request.method} ${request.path}`)));
    request.on('error', reject);
    request.on('response', (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('error', reject);
      response.on('end', () =>
        resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }),
      );
    });
  });
}

/** Basic credentials as a header. */
export function basic(user, password) {
  return { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` };
}
