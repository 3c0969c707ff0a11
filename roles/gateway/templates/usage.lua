-- Written by Farrier's role gateway: how many tokens an answer says that it took, and when the first
-- one came.
--
--   lua-load-per-thread /etc/haproxy/farrier/usage.lua     (global)
--   filter lua.usage                                       (frontend)
--
-- Engines tell it at the end of a whole answer, and in a stream's last event before [DONE] where the
-- request asked for it (stream_options.include_usage):
--
--   "usage":{"prompt_tokens":11,"total_tokens":18,"completion_tokens":7}
--
-- This filter only looks at what passes: it keeps the last few KiB, and at the end it sets
-- txn.prompt_tokens and txn.completion_tokens, which the access log has. With the first bytes behind
-- the answer's head it sets txn.first_token_ms, the milliseconds since txn.asked_at (since the epoch):
-- engines send the head of a stream at once, and its first event with the first token. It changes
-- nothing and holds nothing up, and an error of its own is dropped (pcall). The text of an answer cannot
-- pretend to be usage: quotes within a string of JSON have a backslash before them.
--
-- Never by lua-load: there all threads share one state, and HAProxy 2.6.12 with two threads and any
-- filter in Lua dies within a second under load (measured; "attempt to index a thread value").

local KEEP = 2048 -- bytes that are surely kept; usage has 100 to 300, and little stands behind it
local PIECE = 48 -- what Lua takes for a string beside its bytes

local Usage = {}
Usage.__index = Usage
Usage.id = "farrier: usage"
Usage.flags = filter.FLT_CFG_FL_HTX

function Usage.new()
  return setmetatable({ now = {}, before = {}, count = 0, bytes = 0, began = false }, Usage)
end

function Usage:start_analyze(txn, channel)
  if channel:is_resp() then
    filter.register_data_filter(self, channel)
  end
end

local function begin(txn)
  local asked = txn:get_var("txn.asked_at")
  if asked then
    -- by the clock of txn.asked_at: core.now() is another one, which falls behind on a busy host
    txn:set_var("txn.first_token_ms", math.max(0, txn.f:date(0, "ms") - asked))
  end
end

-- Two generations of pieces: the older one is dropped as a whole, so a piece is never copied again.
local function keep(self, txn, message)
  local piece = message:body(-KEEP)
  if not piece or piece == "" then
    return
  end
  if not self.began then
    self.began = true
    begin(txn)
  end
  self.count = self.count + 1
  self.now[self.count] = piece
  self.bytes = self.bytes + #piece + PIECE
  if self.bytes >= KEEP + PIECE then
    self.before, self.now, self.count, self.bytes = self.now, {}, 0, 0
  end
end

local function number(text, ...)
  for _, name in ipairs({ ... }) do
    local digits = text:match('"' .. name .. '"%s*:%s*(%d+)')
    if digits and #digits <= 12 then
      return math.tointeger(tonumber(digits))
    end
  end
end

local function tell(self, txn)
  local text = table.concat(self.before) .. table.concat(self.now)
  -- With ^: where there is no usage, a match would else be tried from each byte to the end, which held
  -- the ends of 100 streams up by as much as 20 s (measured).
  local usage = text:match('^.*"usage"%s*:%s*{(.*)')
  if not usage then
    return
  end
  local prompt = number(usage, "prompt_tokens", "input_tokens")
  local completion = number(usage, "completion_tokens", "output_tokens")
  if prompt then
    txn:set_var("txn.prompt_tokens", prompt)
  end
  if completion then
    txn:set_var("txn.completion_tokens", completion)
  end
end

function Usage:http_payload(txn, message)
  pcall(keep, self, txn, message)
end

function Usage:http_end(txn, message)
  if self.count > 0 or #self.before > 0 then
    pcall(tell, self, txn)
  end
end

core.register_filter("usage", Usage, function(one)
  return one
end)
