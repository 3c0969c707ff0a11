// Written by Farrier's role nginx: what a key is looked up by. The host keeps no key, and nginx
// itself has no SHA-256.
import crypto from 'crypto';

function sha256(r) {
    const key = r.variables.farrier_sent_key;
    return key ? crypto.createHash('sha256').update(key).digest('hex') : '';
}

export default { sha256 };
