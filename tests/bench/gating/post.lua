-- wrk: a chat completion of about 500 bytes as a POST; the last line of its output is JSON.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"model":"m1","max_tokens":16,"messages":[{"role":"user","content":"'
  .. string.rep("word ", 86) .. '"}]}'

function init(arguments)
  wrk.headers["Authorization"] = "Bearer " .. arguments[1]
end

function done(summary, latency, requests)
  local wrong = summary.errors.status + summary.errors.connect + summary.errors.read
    + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "wrong": %d, "p50_us": %d, "p99_us": %d, "bytes": %d}\n',
    summary.requests, summary.duration / 1e6, wrong, latency:percentile(50),
    latency:percentile(99), summary.bytes))
end
