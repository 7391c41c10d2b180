-- Entries of the directory: locate, enter, leave.
--
-- ARGV: now, items.

local ITEM = '>I1I2I2'                 -- what base lease
local ITEM_BYTES = 5
local LOCATE, ENTER, LEAVE = 0, 1, 2

local items, answers, writes = ARGV[2], {}, {}
local at = 1
while at <= #items do
  local what, base_bytes, lease_bytes = struct.unpack(ITEM, items, at)
  local base_at = at + ITEM_BYTES
  local lease_at = base_at + base_bytes
  at = lease_at + lease_bytes
  local key = string.sub(items, base_at, lease_at - 1) .. ':d'
  if what == LOCATE then
    answers[#answers + 1] = redis.call('SMEMBERS', key)
  else
    -- Looked at first: a key that is no longer here must be known before anything is written.
    answers[#answers + 1] = redis.call('EXISTS', key)
    writes[#writes + 1] = {what == ENTER and 'SADD' or 'SREM', key, string.sub(items, lease_at, at - 1)}
  end
end
for i = 1, #writes do
  redis.call(unpack(writes[i]))
end
return answers
